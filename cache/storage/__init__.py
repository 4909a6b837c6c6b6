"""Where bytes lie: paths, atomic writes, object storage, locks and shard claims."""
