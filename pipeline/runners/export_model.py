"""A localiser and its backbone as an ONNX file: converted, checked, measured, written with its JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from stages.eval.queries import require_zone
from stages.files import Progress, new_folder, sha256_of
from stages.images.read import UnreadableImage
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageSource
from stages.models.localiser.io import digest_of_folder
from stages.models.localiser.recall import errors_m
from stages.models.onnx_export.check import TOLERANCE, OnnxLocaliser, require_equal
from stages.models.onnx_export.convert import convert, require_packages
from stages.models.onnx_export.description import describe
from stages.models.onnx_export.graph import LocaliserGraph
from stages.models.onnx_export.stored_weights import Precision, store_weights

GRAPH, DESCRIPTION = "localiser.onnx", "localiser.json"
_MOST_QUERIES = 1000
"""Queries measured, evenly spread over the manifest: each takes the time of one pass on the CPU."""
_BATCH = 8

Facts = list[tuple[str, object]]


@dataclass(frozen=True)
class ModelExport:
    """What `pipeline export model` was told; None: the project's localiser, the recorded weights."""

    folder: Path
    precision: Precision
    model: Path | None = None
    weights: Path | None = None


def export_model(params: Params, paths: Paths, request: ModelExport, *, progress: Progress) -> Facts:
    """Write a folder with the graph and its description, and return the lines to print.

    Nothing is left behind unless the graph gives the answers of Python.

    Raises
    ------
    InputError
        If a package is missing, the folder exists, the backbone cannot be exported, or the answers differ.
    """
    require_packages()
    model = request.model or paths.localiser
    with new_folder(request.folder) as folder:
        photo_localiser = PhotoLocaliser.load(model, weights=request.weights)
        localiser, backbone = photo_localiser.trained, photo_localiser.backbone.in_float32()
        queries = _Queries.of(paths, photo_localiser)
        exact, graph = folder / "float32.onnx", folder / GRAPH
        convert(LocaliserGraph(localiser, backbone), exact)
        pixels = np.concatenate([_patterns(backbone.image_size), *(next(queries.batches(), ())[:1])])
        onnx = OnnxLocaliser(exact)
        worst = max(require_equal(onnx, localiser, backbone, batch) for batch in (pixels, pixels[:1]))
        store_weights(exact, graph, request.precision)
        measured = queries.measure(exact, graph, request.precision, params.eval.radius_m, progress)
        exact.unlink()
        description = {
            "placecache": version("placecache"),
            "localiser_sha256": digest_of_folder(model),
            "graph": {"file": GRAPH, "sha256": sha256_of(graph), "weights": request.precision},
            **describe(localiser, backbone.preprocess),
            "checked": {"photos": len(pixels), "cosine difference": worst, "accepted": TOLERANCE},
            "queries": measured,
        }
        (folder / DESCRIPTION).write_text(json.dumps(description) + "\n", encoding="utf-8")
        size_mb = round(graph.stat().st_size / 1e6, 1)
    return [
        ("places", len(localiser.places)),
        ("photos checked", len(pixels)),
        ("cosine difference", f"{worst:.1g}"),
        *((f"queries: {name}", value) for name, value in measured.items()),
        ("MB", size_mb),
        ("folder", request.folder),
    ]


@dataclass(frozen=True)
class _Queries:
    """Queries of the project that the graph is measured with; none if they are not indexed."""

    manifest: Manifest | None
    rows: npt.NDArray[np.int64]
    photo_localiser: PhotoLocaliser

    @classmethod
    def of(cls, paths: Paths, photo_localiser: PhotoLocaliser) -> _Queries:
        """Return at most `_MOST_QUERIES` queries, evenly spread over the manifest."""
        if not paths.index("queries").exists():
            return cls(None, np.zeros(0, np.int64), photo_localiser)
        manifest = Manifest.open(paths.index("queries"))
        require_zone(manifest, photo_localiser.trained)
        count = min(manifest.rows, _MOST_QUERIES)
        rows = np.linspace(0, manifest.rows - 1, count).round().astype(np.int64)
        return cls(manifest, rows, photo_localiser)

    def batches(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
        """Yield preprocessed pixels (b, S, S, 3) and rows of the readable queries."""
        if self.manifest is None:
            return
        source, preprocess = ImageSource(self.manifest), self.photo_localiser.backbone.preprocess
        for part in np.split(self.rows, range(_BATCH, len(self.rows), _BATCH)):
            pixels, rows = [], []
            for row in part.tolist():
                (location,) = source.locations(row, row + 1)
                with suppress(UnreadableImage):
                    pixels.append(
                        preprocess(source.read(location, decode_at_least=preprocess.decode_at_least))
                    )
                    rows.append(row)
            if rows:
                yield np.stack(pixels), np.array(rows)

    def measure(
        self, exact: Path, graph: Path, precision: Precision, radius_m: float, progress: Progress
    ) -> dict[str, Any]:
        """Return LR@1 in percent of the graph, and of that with float32 weights; unreadable ones count."""
        if self.manifest is None or not len(self.rows):
            return {}
        files = {"LR@1": graph} if precision == "float32" else {"LR@1": graph, "LR@1 float32": exact}
        graphs = {name: OnnxLocaliser(file) for name, file in files.items()}
        truth, centres = self.manifest.positions(), self.photo_localiser.trained.places.centres
        right, seconds, answered = dict.fromkeys(graphs, 0), dict.fromkeys(graphs, 0.0), 0
        for pixels, rows in self.batches():
            for name, onnx in graphs.items():
                started = time.perf_counter()
                first = onnx.ranked_by(pixels).argmax(axis=1)
                seconds[name] += time.perf_counter() - started
                right[name] += int((errors_m(centres[first][:, None], truth[rows]) <= radius_m).sum())
            answered += len(rows)
            progress(answered, len(self.rows))
        percent = {name: round(100 * count / len(self.rows), 1) for name, count in right.items()}
        return {
            **percent,
            "radius_m": radius_m,
            "number": len(self.rows),
            "unreadable": len(self.rows) - answered,
            "ms per photo": round(1000 * seconds["LR@1"] / max(1, answered), 1),
        }


def _patterns(side: int) -> npt.NDArray[np.uint8]:
    """Return noise and a gradient, (2, side, side, 3): the check works without photos too."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    gradient = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=2)
    return np.stack([noise, gradient])
