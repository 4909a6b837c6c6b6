"""The blocks of details.json."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.eval.config import EvalConfig
from stages.eval.localisers.answers import QueryAnswers
from stages.eval.metrics.breakdown import buckets, by_value, conditions, distances
from stages.eval.metrics.intervals import intervals
from stages.eval.metrics.reliability import reliability, risk_coverage, separation
from stages.eval.metrics.units import SamplingUnits
from stages.eval.queries import Queries
from stages.eval.result import LocaliserBlock, Number, RecallBlock, SetBlock, rounded
from stages.index.sources.sets import SET
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, confidence_mismatch, predict
from stages.models.localiser.recall import errors_m, recall_percent
from stages.models.localiser.scoring import Score
from stages.partition.places import Places

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SCORES_TOP = 5


def localiser_block(name: str, answers: QueryAnswers, queries: Queries, config: EvalConfig) -> LocaliserBlock:
    """Return LR@N, error, time and memory of one localiser; unreadable queries count as wrong."""
    result, errors, count = answers.results[name], answers.errors_m[name], int(queries.readable.sum())
    return LocaliserBlock(
        lr=recall_block(errors, queries.readable, queries.units, config),
        ms_per_query=1000 * result.seconds / max(1, count),
        index_bytes=result.index_bytes,
        look_ahead=result.look_ahead,
        confidence=honesty(answers, name, queries, config) if name != "classify" else {},
    )


def honesty(answers: QueryAnswers, name: str, queries: Queries, config: EvalConfig) -> dict[str, Number]:
    """Return calibration error and mean of a localiser's confidences; empty without any."""
    confidence = answers.confidence(name)
    known = np.isfinite(confidence) & queries.readable
    if not known.any():
        return {}
    right = answers.errors_m[name][known, 0] <= config.radius_m
    return {
        "ECE": rounded(reliability(confidence[known], right).error, 3),
        "mean": rounded(100 * confidence[known].mean(), 3),
    }


def recall_block(errors: Floats, readable: Bools, units: SamplingUnits, config: EvalConfig) -> RecallBlock:
    """Return LR@N and median error of queries with these errors, shape (Q, top)."""
    return RecallBlock(
        recall=recall_percent(errors, config.radius_m, config.top),
        interval=intervals(errors, config.radius_m, config.top, units, config.bootstrap, config.seed),
        median_error_m=float(np.median(errors[readable, 0])) if readable.any() else float("nan"),
    )


def session_blocks(answers: QueryAnswers, queries: Queries, config: EvalConfig) -> dict[str, SetBlock]:
    """Return the metrics of each walk if walks are located; empty with a single one."""
    return {} if config.sequence == "none" else set_blocks(answers, queries, config, "session")


def set_blocks(
    answers: QueryAnswers, queries: Queries, config: EvalConfig, column: str = SET
) -> dict[str, SetBlock]:
    """Return the metrics of each query set, in the manifest's order; empty with a single set."""
    if column not in queries.manifest.column_names:
        return {}
    names = queries.manifest.column(column)[queries.rows]
    blocks = {}
    for name in dict.fromkeys(names.tolist()):
        chosen = np.flatnonzero(names == name)
        units = SamplingUnits.of(queries.manifest, queries.rows[chosen])
        readable = queries.readable[chosen]
        recalls = {
            localiser: recall_block(errors[chosen], readable, units, config)
            for localiser, errors in answers.errors_m.items()
        }
        blocks[name] = SetBlock(len(chosen), int((~readable).sum()), units.kind, units.count, recalls)
    return blocks if len(blocks) > 1 else {}


def score_block(localiser: Localiser, queries: Queries, config: EvalConfig) -> dict[str, Number]:
    """Return LR@1 and LR@5 of every score of `classify`, and the name of the score with the best LR@1."""
    names: list[Score] = ["softmax", "cosine"]
    if localiser.calibration is not None:
        names.append("calibrated")
    positions = {
        name: predict(localiser, queries.embedded, top=_SCORES_TOP, score=name).positions for name in names
    }
    fused = answer(
        localiser, queries.embedded, top=_SCORES_TOP, fusion=config.fusion, radius_m=config.radius_m
    )
    numbers: dict[str, Number] = {}
    recall_at_1: dict[str, float] = {}
    for name, readable in (positions | {"fused": fused.positions}).items():
        every = np.full((len(queries.rows), _SCORES_TOP, 2), np.nan)
        every[queries.readable] = readable
        recall = recall_percent(errors_m(every, queries.truth), config.radius_m, (1, _SCORES_TOP))
        recall_at_1[name] = recall[1]
        numbers |= {f"{name} LR@{top}": round(value, 3) for top, value in recall.items()}
    return {**numbers, "best": max(recall_at_1, key=lambda name: recall_at_1[name])}


def confidence_block(
    localiser: Localiser, answers: QueryAnswers, queries: Queries, config: EvalConfig
) -> dict[str, Number]:
    """Return how reliable the confidences of `classify` are, or why they are left out; empty without any."""
    if config.score == "fused" and (reason := confidence_mismatch(localiser, config.fusion, config.radius_m)):
        return {"left out": reason}
    stated = answers.confidence("classify")
    known = np.isfinite(stated) & queries.readable
    if not known.any():
        return {}
    confidence, abstain, outside = stated[known], answers.abstain[known], queries.outside[known]
    right = answers.errors_m["classify"][known, 0] <= config.radius_m
    curve = risk_coverage(confidence, right)
    return {
        **honesty(answers, "classify", queries, config),
        "AUROC right": rounded(separation(confidence, right), 4),
        "AUROC outside": rounded(separation(confidence, ~outside), 4),
        "outside queries": int(outside.sum()),
        "abstained": rounded(100 * abstain.mean(), 3),
        "abstained right": rounded(100 * abstain[right].mean(), 3) if right.any() else None,
        "abstained outside": rounded(100 * abstain[outside].mean(), 3) if outside.any() else None,
        "risk at 50 %": rounded(100 * curve.risk_at(0.5), 3),
        "risk at 80 %": rounded(100 * curve.risk_at(0.8), 3),
        "AURC": rounded(curve.area, 4),
    }


def breakdown_block(
    places: Places, answers: QueryAnswers, queries: Queries, config: EvalConfig
) -> dict[str, float]:
    """Return LR@1 of `classify` by class size, by distance to a cell and by the manifest's conditions."""
    right = answers.errors_m["classify"][:, 0] <= config.radius_m
    numbers = by_value("cell", buckets(places, queries.truth), right)
    numbers |= by_value("centre", distances(places, queries.truth), right)
    for name, values in conditions(queries.manifest, queries.rows):
        numbers |= by_value(name, values, right)
    return numbers
