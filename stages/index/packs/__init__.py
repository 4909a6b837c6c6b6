"""Packs: HDF5 shards of encoded images with a manifest beside them."""
