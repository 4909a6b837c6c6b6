"""The commands: parse a person's words, call one stage, show what came out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from cache.errors import PlacecacheError
from pipeline import console, scores
from pipeline.options import GroupSet, ShardRange
from pipeline.params import Params, load_params
from pipeline.paths import SPLITS, Paths
from stages.errors import ConfigError

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (the GPU if there is one), cpu, cuda, cuda:1, ...",
)

SCHEDULER = click.option("--scheduler", metavar="ADDRESS", help="Dask: local:WORKERS or tcp://host:port.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="placecache")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that holds params.yaml (default: this one).",
)
@click.pass_context
def cli(context: click.Context, project: Path) -> None:
    """Say where in a city a photo was taken.

    The stages, in order: index, partition, extract, train-heads, eval. `dvc repro` runs those that are due.
    """
    context.obj = project


def project_of(context: click.Context) -> tuple[Params, Paths]:
    """Return the parameters and the paths of the project that the command runs in."""
    project: Path = context.obj
    params = load_params(project / "params.yaml")
    extract = params.extract
    return params, Paths(project, f"{extract.backbone}-{extract.image_size}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: an error on purpose is one line and exit 1 (2 for a wrong call)."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.UsageError as fault:
        where = f" (see `{fault.ctx.command_path} --help`)" if fault.ctx else ""
        console.error(fault.format_message() + where)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        console.error("interrupted: run the same command again to continue")
        sys.exit(130)
    except (PlacecacheError, click.ClickException) as fault:
        console.error(str(fault))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="A parameter to change.")
def init(folder: Path, settings: tuple[str, ...]) -> None:
    """Lay out FOLDER as a project: params.yaml, dvc.yaml, Git and DVC."""
    from pipeline.project import make_project, parse_setting

    make_project(folder, dict(parse_setting(setting) for setting in settings))
    console.say(f"{folder} is ready: look into its params.yaml, then run `dvc repro` there")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole pipeline in FOLDER (default: demo) on the city that the project draws."""
    from pipeline import demo as demonstration

    demonstration.run(folder, say=console.say)
    scores.show(Paths(folder, "").metrics, whole=False)


@cli.command()
@click.pass_context
def index(context: click.Context) -> None:
    """Find the images and their positions: a manifest per split."""
    from stages.index import run

    params, paths = project_of(context)
    zone = None
    for split in ("database", "queries"):
        source = source_of(params, paths, split)
        with console.progress(f"index {split}") as progress:
            result = run(
                params.index,
                source=source,
                output=paths.index(split),
                split=split,
                zone=zone,
                progress=progress,
            )
        zone = result.zone or None
        console.facts(f"index {split}: {source}", result.facts())


@cli.command()
@click.pass_context
def partition(context: click.Context) -> None:
    """Cut the city into classes and groups, and plan the views of the long tail."""
    from stages.partition import run

    params, paths = project_of(context)
    with console.progress("partition") as progress:
        result = run(
            params.partition,
            manifest=paths.index("database"),
            output=paths.partition,
            seed=params.seeds.views,
            progress=progress,
        )
    console.facts("partition", result.facts())


@cli.command()
@click.option("--shards", type=ShardRange(), help="Work shards to do, such as 0-63 (default: all).")
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Default: all three.")
@click.option("--keep", is_flag=True, help="Put features of another recipe aside until that recipe returns.")
@click.option("--replace", is_flag=True, help="Drop features made by another recipe and begin anew.")
@click.option("--repair", is_flag=True, help="Check what is done first and do damaged chunks again.")
@SCHEDULER
@DEVICE
@click.pass_context
def extract(
    context: click.Context,
    shards: tuple[int, ...] | None,
    splits: tuple[str, ...],
    keep: bool,
    replace: bool,
    repair: bool,
    scheduler: str | None,
    device: str,
) -> None:
    """Put images and planned views through the frozen backbone, once; run it again to continue."""
    from pipeline.extraction import extract_split

    params, paths = project_of(context)
    chosen = shards_of(params, shards)
    for split in splits or SPLITS:
        console.say(f"extract {split}: {params.extract.backbone} on {device_name(device)}")
        with console.progress(f"extract {split}") as progress:
            result = extract_split(
                params,
                paths,
                split,
                shards=chosen,
                device=resolve(device),
                replace=replace,
                keep=keep,
                repair=repair,
                scheduler=scheduler,
                progress=progress,
            )
        console.facts(f"extract {split}", result.facts())


@cli.command("train-heads")
@click.option(
    "--groups", type=GroupSet(), default="all", show_default=True, help="all, or numbers: 0,3 or 0-2."
)
@click.option(
    "--frozen", is_flag=True, help="Keep the projection of the localiser at hand, train heads alone."
)
@SCHEDULER
@DEVICE
@click.pass_context
def train_heads(
    context: click.Context, groups: tuple[int, ...] | None, frozen: bool, scheduler: str | None, device: str
) -> None:
    """Train the projection and the groups' heads from cached features; run it again to continue."""
    from pipeline.training import train

    params, paths = project_of(context)
    console.say(f"train-heads: on {device_name(device)}")
    result = train(params, paths, groups=groups, frozen=frozen, device=resolve(device), scheduler=scheduler)
    if result is not None:
        console.facts("train-heads", result.facts())


@cli.command("eval")
@DEVICE
@click.pass_context
def evaluate(context: click.Context, device: str) -> None:
    """Localise the queries and write metrics.json, predictions and the LR@N curve."""
    from stages.eval.stage import run

    params, paths = project_of(context)
    run(
        params.eval,
        localiser=paths.localiser,
        features=paths.features("queries"),
        manifest=paths.index("queries"),
        metrics=paths.metrics,
        predictions=paths.predictions,
        curve=paths.curve,
        database=paths.features("database"),
        database_manifest=paths.index("database"),
        device=resolve(device),
    )
    scores.show(paths.metrics, whole=True)


@cli.command("report")
@click.pass_context
def write_report(context: click.Context) -> None:
    """Write report.html: numbers, map, plots, and photos of the worst failures."""
    from stages.eval.report.stage import run

    params, paths = project_of(context)
    result = run(
        params.report,
        predictions=paths.predictions,
        metrics=paths.metrics,
        recall_curve=paths.curve,
        classes=paths.localiser / "classes.parquet",
        labels=paths.partition / "labels.npy",
        database=paths.index("database"),
        queries=paths.index("queries"),
        output=paths.report,
        plots=paths.plots,
    )
    console.facts("report", result.facts())


@cli.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="The localiser's folder.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="The backbone's weights, if a file."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many places to give.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DEVICE
@click.pass_context
def locate(
    context: click.Context,
    photos: tuple[Path, ...],
    model: Path | None,
    weights: Path | None,
    top: int,
    page: Path | None,
    as_json: bool,
    device: str,
) -> int:
    """Say where photos were taken: files, or folders of them. Exit code 1 if any is unreadable."""
    from pipeline import located
    from pipeline.locate import Localiser, photos_of
    from stages.images import UnreadableImage

    folder = model or Paths(context.obj, "").localiser
    found = photos_of(photos)
    localiser = Localiser.load(folder, weights=weights, device=resolve(device))
    outcomes = []
    for outcome in localiser.locate_all(found, top=top):
        outcomes.append(outcome)
        if not as_json:
            located.show(outcome)
    if as_json:
        click.echo(located.as_json(outcomes))
    if page is not None:
        located.write_map(page, localiser, outcomes)
    return int(any(isinstance(outcome, UnreadableImage) for outcome in outcomes))


@cli.command()
@click.option("--bad", is_flag=True, help="List the images that could not be read, with the reason.")
@click.pass_context
def status(context: click.Context, bad: bool) -> None:
    """Show what is done, missing and bad, how large it is and how fast it went."""
    from pipeline import status as report

    _, paths = project_of(context)
    console.table("artifacts", report.COLUMNS, report.artifacts(paths))
    console.facts("where the time of extracting went", report.time_spent(paths))
    if running := list(report.runs(paths)):
        console.facts("being extracted", running)
    if bad:
        console.table("unreadable images", ("split", "row", "key", "reason"), report.bad_images(paths))


@cli.command()
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Default: all there are.")
@click.pass_context
def verify(context: click.Context, splits: tuple[str, ...]) -> int:
    """Read every stored feature again and find flipped bits, torn and missing chunks. Exit 1 if any."""
    from pipeline.verify import verify_split

    _, paths = project_of(context)
    verdicts = []
    for split in splits or [split for split in SPLITS if paths.features(split).exists()] or SPLITS[:1]:
        with console.progress(f"verify {split}") as progress:
            verdicts.append(verify_split(paths, split, progress))
    columns = ("split", "chunks", "missing", "damaged", "bad rows", "verdict")
    console.table("feature stores", columns, (verdict.row() for verdict in verdicts))
    if faults := [row for verdict in verdicts for row in verdict.fault_rows()]:
        console.table("damage", ("split", "chunk", "rows", "array", "what is wrong"), faults)
    unsound = [verdict for verdict in verdicts if not verdict.sound]
    for verdict in unsound:
        console.say(f"{verdict.split}: run `{verdict.remedy}`")
    return int(bool(unsound))


@cli.command()
@SCHEDULER
@DEVICE
@click.pass_context
def doctor(context: click.Context, scheduler: str | None, device: str) -> int:
    """Look at device, weights, disk, data and stores before hours are spent. Exit 1 if something blocks."""
    from pipeline.doctor import examine

    params, paths = project_of(context)
    blocked = False
    for finding in examine(params, paths, device=resolve(device), scheduler=scheduler):
        blocked |= finding.blocks
        console.finding(finding.mark, finding.subject, finding.text, finding.remedy)
    return int(blocked)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that pack (default: one per processor core)."
)
@click.pass_context
def pack(context: click.Context, source: Path, output: Path, workers: int | None) -> None:
    """Gather the images of SOURCE (a folder, .csv, .txt list or .parquet manifest) in large files.

    OUTPUT then holds HDF5 files and manifest.parquet: set data.database or data.queries to that manifest.
    """
    from os import cpu_count

    from pipeline.packing import pack as pack_images

    params, _ = project_of(context)
    with console.progress("pack") as progress:
        result = pack_images(params, source, output, workers=workers or cpu_count() or 1, progress=progress)
    console.facts(f"pack {source}: {result.manifest}", result.facts())


@cli.group("export")
def export() -> None:
    """Write what the project holds for other programs."""


@export.command("features")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Whose features.")
@click.pass_context
def export_features(context: click.Context, file: Path, split: str) -> None:
    """Write features to FILE: .h5 in hloc's layout, or .npy with a .csv of the keys beside it."""
    from pipeline.interchange import export_split

    _, paths = project_of(context)
    with console.progress(f"export {split}") as progress:
        result = export_split(paths, split, file, progress=progress)
    console.facts(f"export {split}", result.facts())


@cli.group("import")
def import_() -> None:
    """Take in what other programs made."""


@import_.command("features")
@click.argument("array", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("positions", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Whose features.")
@click.option("--name", required=True, help="What made them; the same for database and queries.")
@click.option("--replace", is_flag=True, help="Drop features that something else made.")
@click.pass_context
def import_features(
    context: click.Context, array: Path, positions: Path, split: str, name: str, replace: bool
) -> None:
    """Train on your own features: ARRAY is an .npy (rows, F), POSITIONS a .csv with a line for each row.

    They take the place of `index` and `extract`. Set train.augment_views to false: there are no views.
    """
    from pipeline.interchange import import_split

    params, paths = project_of(context)
    with console.progress(f"import {split}") as progress:
        result = import_split(
            params, paths, split, array, positions, name=name, replace=replace, progress=progress
        )
    console.facts(f"import {split}", result.facts())


def shards_of(params: Params, shards: tuple[int, ...] | None) -> Sequence[int]:
    """Return the shards asked for, all if none were, once they are known to exist."""
    every = range(params.extract.shards)
    beyond = [shard for shard in shards or () if shard not in every]
    if beyond:
        raise ConfigError(
            f"--shards names {beyond[0]}, expected 0 to {every[-1]}: extract.shards is {len(every)}"
        )
    return shards or every


def source_of(params: Params, paths: Paths, split: str) -> Path:
    """Return where a split's images are; the toy city is drawn first if it is not there yet."""
    source: str = getattr(params.data, split)
    if source != "toycity":
        return paths.project / source
    from stages.city import draw

    with console.progress("draw the toy city") as progress:
        draw(params.toycity, paths.toycity, progress=progress)
    return paths.toycity / split


def resolve(device: str) -> str:
    """Return the device that `auto` stands for here."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """Return a device in words, so that nobody is on the CPU without knowing."""
    import torch

    resolved = resolve(device)
    if resolved.startswith("cuda") and torch.cuda.is_available():
        return f"{resolved} ({torch.cuda.get_device_name(resolved)})"
    return f"{resolved} ({torch.get_num_threads()} threads)"
