"""What the view plan costs in passes of the backbone, against "every view of every image".

For a simulated city whose classes hold 12 to 3,600 images (300 : 1, as SF-XL's), with sizes spread
evenly over the logarithm (even) or with most classes small (skewed), and for any drawn project.

    python benchmarks/view_plan_cost.py --partition demo/data/partition
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measure import ROOT

from pipeline.project.params import load_params
from stages.partition.classes import ClassTable
from stages.partition.tail_augmentation import long_tail
from stages.partition.views import ViewPlan

LEAST, MOST = 12, 3600


def simulated(classes, power, seed=0):
    """Class sizes LEAST * (MOST / LEAST) ** (u ** power)."""
    u = np.random.default_rng(seed).random(classes) ** power
    return np.round(LEAST * (MOST / LEAST) ** u).astype(np.int64)


def show(name, images, views, max_views):
    every = images * max_views
    print(
        f"{name:28} {images:12,} images, {views:12,.0f} view passes: {views / images:.2f} an image, "
        f"{views / every:.0%} of every view of every image ({every:,})"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--partition", type=Path, help="data/partition of a project")
    parser.add_argument("--classes", type=int, default=50_000)
    options = parser.parse_args()
    config = load_params(ROOT / "params.yaml").partition
    print(f"max_views {config.max_views}, p_max {config.p_max}, gamma {config.gamma}")
    for name, power in (("simulated 300 : 1, even", 1.0), ("simulated 300 : 1, skewed", 3.0)):
        counts = simulated(options.classes, power)
        p_aug = long_tail(counts, config).p_aug.astype(np.float64)
        show(
            name,
            int(counts.sum()),
            float((counts * config.max_views * p_aug / config.p_max).sum()),
            config.max_views,
        )
    if options.partition:
        table = ClassTable.load(options.partition / "classes.parquet")
        views = ViewPlan.load(options.partition / "views.parquet")
        show(str(options.partition), int(table.images.sum()), len(views), config.max_views)


if __name__ == "__main__":
    main()
