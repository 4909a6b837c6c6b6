"""Import and export: features, pairs, positions and models, of and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.commands.context import DEVICE, in_project, one_device, project_of
from pipeline.commands.help import HelpfulGroup
from pipeline.commands.options import MODEL, WEIGHTS
from pipeline.project.paths import Paths


@click.group("import", cls=HelpfulGroup)
def import_() -> None:
    """Use features that another program made."""


@import_.command("features")
@click.argument("features", type=click.Path(path_type=Path))
@click.argument("positions", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Their split.")
@click.option("--name", required=True, help="Name of what made them; the same one for database and queries.")
@click.option("--replace", is_flag=True, help="Delete features that something else made.")
@in_project
def import_features(
    context: click.Context, features: Path, positions: Path, split: str, name: str, replace: bool
) -> None:
    """Import features and the images' positions.

    FEATURES is an .npy of shape (rows, F), an .h5 in hloc's layout, or a folder of .npy: one per image, or
    one array with names.txt. POSITIONS is a .csv with one line per image, or a .txt in COLMAP's form (image,
    latitude, longitude, altitude). Import database and queries. They replace the stages index and extract;
    params.yaml is set accordingly. Imported features have no views.
    """
    from pipeline.runners.import_export import ImportRequest, import_split

    params, paths = project_of(context)
    request = ImportRequest(features, positions, split, name, replace)
    with console.progress(f"import {split}") as progress:
        facts = import_split(params, paths, request, progress=progress)
    console.facts(f"import {split}: {name}", facts)


@import_.command("pairs")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@in_project
def import_pairs(context: click.Context, file: Path) -> None:
    """Measure LR@N of another program's retrieval.

    FILE has hloc's form: a query and a database image on each line, the best match of a query first. Nothing
    is written.
    """
    from pipeline.runners.pairs import measure_pairs

    params, paths = project_of(context)
    console.facts(f"pairs: {file}", measure_pairs(params, paths, file))


@click.group("export", cls=HelpfulGroup)
def export() -> None:
    """Write features and models to files for other programs."""


@export.command("features")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Split to export.")
@in_project
def export_features(context: click.Context, file: Path, split: str) -> None:
    """Export a split's features to FILE.

    FILE is an .h5, an .npy or, without a suffix, a folder. An .h5 file has hloc's layout. Beside an .npy file
    goes a .csv with the images' keys. A folder gets one .npy per image.
    """
    from pipeline.runners.import_export import export_split

    _, paths = project_of(context)
    with console.progress(f"export {split}") as progress:
        result = export_split(paths, split, file, progress=progress)
    console.facts(f"export {split}", result.facts())


@export.command("pairs")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="Images per query.")
@DEVICE
@in_project
def export_pairs(context: click.Context, file: Path, top: int, device: str) -> None:
    """Export the database images most similar to each query.

    The form is that of hloc's pairs_from_retrieval. The images are those that eval's retrieve finds.
    """
    from pipeline.runners.pairs import export_pairs as run

    params, paths = project_of(context)
    console.facts("export pairs", run(params, paths, file, top, one_device(device)))


@export.command("positions")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Split to export.")
@in_project
def export_positions(context: click.Context, file: Path, split: str) -> None:
    """Export a split's positions to FILE in COLMAP's form.

    Each line has image, latitude, longitude and altitude (0). COLMAP reads the file with model_aligner
    --ref_images_path FILE --ref_is_gps 1, and `pipeline import features` with the suffix .txt.
    """
    from pipeline.runners.import_export import export_positions as run

    _, paths = project_of(context)
    console.facts(f"export positions of {split}", run(paths, split, file))


@export.command("map")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@in_project
def export_map(context: click.Context, folder: Path) -> None:
    """Export cells, photos and predictions as layers of a map.

    FOLDER then holds cells.parquet, database.parquet and, after `pipeline eval`, predictions.parquet:
    GeoParquet in degrees (EPSG:4326), which QGIS and GeoPandas open.
    """
    from pipeline.runners.export_map import export_map as run

    _, paths = project_of(context)
    console.facts("export map", run(paths, folder))


@export.command("model")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format", "form", type=click.Choice(("onnx",)), default="onnx", show_default=True, help="Format."
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "float16", "int8")),
    default="float32",
    show_default=True,
    help="Type of the stored weights; the arithmetic is float32.",
)
@MODEL
@WEIGHTS
@in_project
def export_model(context: click.Context, folder: Path, form: str, **options: Any) -> None:
    """Export the localiser and its backbone as one ONNX file.

    FOLDER then holds localiser.onnx and localiser.json with the places, the preprocessing and LR@1 of the
    project's queries. The file gives the answers of Python, without exemplars and fusion. It needs
    `pip install 'placecache[onnx]'`.
    """
    from pipeline.runners.export_model import ModelExport
    from pipeline.runners.export_model import export_model as run

    params, paths = project_of(context)
    with console.progress("measure LR@1") as progress:
        facts = run(params, paths, ModelExport(folder, **options), progress=progress)
    console.facts(f"export model: {form}", facts)


@click.command()
@click.argument("target")
@MODEL
@click.option(
    "--licence",
    default="other",
    show_default=True,
    help="Licence of the localiser, as the hub writes it: cc-by-4.0.",
)
@click.option("--photos", is_flag=True, help="Also send names and positions of the exemplars' photos.")
@in_project
def push(context: click.Context, target: str, **options: Any) -> None:
    """Send the localiser with a model card to others.

    TARGET is a folder, an address such as s3://bucket/folder, or a repository hf://user/name of the Hugging
    Face hub; a new one is private. Folders and addresses must not exist, a repository gets another commit.
    The localiser reveals where photos were taken: read its README.md first. `dvc push` sends it to a DVC
    remote.
    """
    from pipeline.runners.push_pull import push as run

    console.facts("push", run(Paths(context.obj, ""), target, **options))


@click.command()
@click.argument("target")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@in_project
def pull(context: click.Context, target: str, folder: Path | None) -> None:
    """Fetch a localiser that was pushed.

    FOLDER (models/localiser of the project, if omitted) must not exist. It is complete or absent: every
    file is compared with the SHA-256 that `pipeline push` noted. `pipeline locate --model FOLDER` uses it.
    hf://user/name@REVISION names a version of a repository.
    """
    from pipeline.runners.push_pull import pull as run

    console.facts("pull", run(Paths(context.obj, ""), target, folder))


COMMANDS = (import_, export, push, pull)
