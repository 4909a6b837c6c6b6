"""The demo: a project folder, the whole pipeline on the toy city, a first commit to compare with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.project.init import commit_all, make_project, reproduce, template
from pipeline.project.params import load_params

STAND_IN = "efficientnet_lite0"


def run(folder: Path, *, report: Callable[[str], None]) -> None:
    """Run the pipeline in `folder`, laid out on first use with a backbone whose weights are in reach.

    The choice is made once, when the folder is laid out, and stands in its params.yaml.
    """
    if not (folder / "params.yaml").exists():
        make_project(folder, {"extract.backbone": reachable_backbone(report)})
    reproduce(folder)
    commit_all(folder, "Run the demo")
    report(
        f"\nThis ran in {folder}: change its params.yaml, `dvc repro` there, compare with `dvc metrics diff`."
    )


def reachable_backbone(report: Callable[[str], None]) -> str:
    """Return the default backbone if its weights can be had here, else the one that comes with pip."""
    from stages.models.backbones.backbone import weights_reachable

    extract = load_params(template("params.yaml")).extract
    if weights_reachable(extract.backbone, extract.weights):
        return extract.backbone
    report(f"the weights of {extract.backbone} are not in reach here, so the demo runs with {STAND_IN}")
    return STAND_IN
