"""Small JPEG files, their manifest, and stage one over them with a small backbone at 32 pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.extract.config import ExtractConfig
from stages.extract.plan import RowSource
from stages.extract.stage import ExtractInputs
from stages.extract.stage import run as extract
from stages.index.manifest_writer import write_manifest

CONFIG = ExtractConfig(
    backbone="efficientnet_lite0",
    weights="pretrained",
    image_size=32,
    outputs=("avg", "gem"),
    layers="last",
    cut="none",
    dtype="float16",
    precision="float32",
    compile=False,
    shards=2,
    batch_size=20,
    readers=2,
    decoder="pillow",
    decode="exact",
    threads=1,
    max_bad_fraction=0.05,
)


def draw(path, seed):
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize((60, 40), Image.Resampling.NEAREST).save(path, quality=90)


def listed(path, root, keys):
    count = len(keys)
    batch = pa.record_batch(
        {
            "key": list(keys),
            "utm_east": np.arange(count, dtype=np.float64),
            "utm_north": np.zeros(count),
            "heading": pa.array(np.zeros(count), pa.float32()),
            "timestamp": [""] * count,
        }
    )
    return write_manifest(path, [batch], root=root, zone="10S", source="names")


def run(manifest, store, config=CONFIG, shards=None, **options):
    def chosen(*names):
        return {name: options.pop(name) for name in names if name in options}

    source = RowSource(manifest, **chosen("views", "augment", "seed"))
    callbacks = chosen("progress", "report", "mapper")
    shards = range(config.shards) if shards is None else shards
    return extract(ExtractInputs(config, source, store, shards, **{"device": "cpu", **options}), **callbacks)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
