"""The everyday commands: start a project, run the demo, look at the progress, explain words."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import console, metrics_table
from pipeline.commands.context import in_project, one_device, project_of
from pipeline.commands.locate import locate
from pipeline.commands.serve import serve
from pipeline.project.paths import Paths


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="A setting to change.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="Photos with known positions: a folder, .csv, .txt or manifest. Settings are chosen to fit.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path, exists=True),
    help="Photos to locate (default: some photos of --from are held out).",
)
def init(folder: Path, settings: tuple[str, ...], source: Path | None, queries: Path | None) -> None:
    """Create a project in FOLDER.

    It gets params.yaml, dvc.yaml, experiments.yaml, DVC, and a Git repository unless FOLDER is already in
    one. These files are committed, so that `dvc metrics diff` and `dvc exp run` have a baseline.
    """
    from pipeline.project.init import make_project, parse_setting

    own = dict(parse_setting(setting) for setting in settings)
    if queries is not None and source is None:
        raise click.UsageError("--queries needs --from, the photos with known positions")
    if source is None:
        repository = make_project(folder, own)
    else:
        repository = _project_of_photos(folder, own, source, queries)
    if repository is not None:
        console.line(f"{folder} is in the Git repository {repository}: its new files are committed there")
    console.line(f"created {folder}: check its params.yaml, then run `cd {folder} && dvc repro`")


def _project_of_photos(
    folder: Path, own: dict[str, object], source: Path, queries: Path | None
) -> Path | None:
    """Create a project whose settings fit photos; `own` settings take precedence. Print the choices."""
    from tempfile import TemporaryDirectory

    from pipeline.project.choices import choose
    from pipeline.project.init import make_project

    with TemporaryDirectory() as scratch:
        chosen = choose(source, queries, Path(scratch), one_device("auto"), console.progress)
        repository = make_project(folder, chosen.settings | own, add=chosen.write_lists)
    for line in chosen.left_out:
        console.line(line)
    for choice in chosen.choices:
        if choice.setting not in own:
            console.line(f"{choice.setting}: {choice.value}  ({choice.reason})")
    return repository


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole pipeline on a toy city, in FOLDER.

    FOLDER is "demo" by default. The city is drawn by the program itself.
    """
    from pipeline.project import demo as demo_project

    demo_project.run(folder, report=console.line)
    paths = Paths(folder, "")
    metrics_table.show(paths, localisers_only=True)
    console.link(paths.report)


@click.command()
@click.option("--bad", is_flag=True, help="List the skipped and unreadable images, with reasons.")
@in_project
def status(context: click.Context, bad: bool) -> None:
    """Show what is done, missing and unreadable, size and speed."""
    from pipeline.checks import status as checks

    _, paths = project_of(context)
    console.table("artifacts", checks.COLUMNS, checks.artifacts(paths))
    console.facts("time spent extracting", checks.time_spent(paths))
    if running := list(checks.running_extractions(paths)):
        console.facts("being extracted", running)
    if bad:
        console.table("skipped by index", ("split", "key", "reason"), checks.skipped_entries(paths))
        console.table("unreadable images", ("split", "row", "key", "reason"), checks.bad_images(paths))


@click.command()
@click.argument("topic", default="")
def explain(topic: str) -> None:
    """Explain the words in metrics, reports and tables.

    TOPIC is metrics, train-heads, data, places or a word such as ECE. Without it, everything is printed.
    """
    from pipeline.project.glossary import explain as lookup
    from pipeline.project.glossary import read_glossary

    glossary = read_glossary()
    sections = lookup(glossary, topic)
    if not sections:
        known = ", ".join(glossary)
        raise click.ClickException(f"{topic} is not in the glossary: expected a word, or {known}")
    for title, rows in sections.items():
        console.facts(title, rows)


COMMANDS = (init, demo, locate, serve, status, explain)
