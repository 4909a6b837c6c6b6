"""SF-XL names, lists of them, and an index of a source."""

from stages.index.config import IndexConfig
from stages.index.manifest import Manifest
from stages.index.stage import IndexInputs, run

SKIP, STOP = IndexConfig(on_error="skip"), IndexConfig(on_error="stop")


def name(
    east="0543256.96",
    north="4178906.70",
    zone="10",
    band="S",
    heading="090",
    stamp="201408",
    pano="z8tOq_kN-8h",
    latitude="037.75689",
):
    return f"@{east}@{north}@{zone}@{band}@{latitude}@-122.50896@{pano}@@{heading}@@@@{stamp}@@.jpg"


def index(source, tmp_path, config=SKIP, zone=None, progress=None):
    output = tmp_path / "out" / "database.parquet"
    split = "database" if zone is None else "queries"
    result = run(IndexInputs(config, (source,), output, split, zone), progress=progress)
    return result, Manifest.open(output)


def listed(tmp_path, lines, ending="\n", last="\n"):
    path = tmp_path / "list.txt"
    path.write_bytes((ending.join(lines) + last).encode())
    return path
