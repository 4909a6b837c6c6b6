"""Images -> packs, HDF5 shards of encoded images with a manifest beside them.

`encode` makes one image's bytes, `shards` writes one file and `stage` is the whole run.
"""
