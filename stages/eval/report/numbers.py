"""The numbers of details.json as the report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.eval.report.text import metres

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """One headline number with its unit and a remark; both may be empty."""

    name: str
    value: str
    unit: str
    remark: str = ""


@dataclass(frozen=True)
class Numbers:
    """The blocks of details.json: those of localisers, those of query sets and of walks, and all others."""

    localisers: dict[str, Metrics]
    parts: dict[str, dict[str, Metrics]]
    others: dict[str, Metrics]

    @classmethod
    def of(cls, metrics: Metrics) -> Numbers:
        """Return the blocks of details.json; a block with LR@1 is that of a localiser."""
        localisers = {name: block for name, block in metrics.items() if "LR@1" in block}
        parts = {name: metrics.get(name, {}) for name in ("sets", "sessions")}
        others = {name: block for name, block in metrics.items() if name not in (*localisers, *parts)}
        return cls(localisers, parts, others)

    @property
    def common(self) -> list[str]:
        """Names of the numbers that all localisers have, without the intervals."""
        first, *rest = self.localisers.values()
        names = [name for name in first if not name.endswith((" low", " high"))]
        return [name for name in names if all(name in block for block in rest)]

    @property
    def recalls(self) -> list[str]:
        """Names of LR@N, without the intervals."""
        return [name for name in self.common if name.startswith("LR@")]

    @property
    def tiles(self) -> list[Tile]:
        """The headline numbers of the first localiser."""
        first: Metrics = next(iter(self.localisers.values()), {})
        tiles = []
        for name, value in first.items():
            if name.startswith("LR@") and name[3:].isdigit():
                low, high = first.get(f"{name} low"), first.get(f"{name} high")
                interval = "" if low is None or high is None else f"95 %: {low:.1f} to {high:.1f}"
                tiles.append(Tile(name, f"{value:.1f}", "%", interval))
        if (median := first.get("median_error_m")) is not None:
            tiles.append(Tile("Median error", *metres(float(median)).split(" ")))
        if (ceiling := first.get("ceiling")) is not None:
            tiles.append(Tile("Ceiling", f"{ceiling:.1f}", "%", "queries that an answer can reach"))
        if (auroc := self.others.get("confidence", {}).get("AUROC outside")) is not None:
            tiles.append(Tile("Outside AUROC", f"{auroc:.2f}", "", "detection of unknown places"))
        return tiles
