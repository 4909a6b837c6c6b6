"""The plots of an evaluation, each with a caption."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from stages.eval.plots.curves import Curve
from stages.eval.plots.figure import INK, MUTED, PANEL, SERIES, SHADE, Plot, plot


def recall_plot(curve: Curve, radius_m: float) -> Plot | None:
    """LR@N over N, a line per localiser; None if there is no curve."""
    names = [name for name in curve.columns if name != "n"]

    def draw(axes: Axes) -> None:
        n = curve.numbers("n")
        for name, colour in zip(names, SERIES, strict=False):
            recall = curve.numbers(name)
            axes.plot(n, recall, color=colour, label=name)
            axes.plot(n[:1], recall[:1], "o", color=colour, markersize=6)
            if len(names) == 1:
                axes.annotate(f"{recall[0]:.1f}", (n[0], recall[0]), (7, -12), textcoords="offset points")
        axes.set(xlabel="N, number of predictions", ylabel=f"within {radius_m:g} m, %", ylim=(0, 102))
        axes.set_xlim(left=0.5)
        axes.set_xticks([tick for tick in (1, 5, 10, 15, 20, 50, 100) if tick <= n[-1]])
        if len(names) > 1:
            axes.legend(loc="lower right")

    return plot(
        curve,
        "lr_curve",
        "LR@N",
        f"Share of queries for which one of the first N predictions lies within {radius_m:g} m of the truth.",
        draw,
    )


def error_plot(curve: Curve, radius_m: float) -> Plot | None:
    """Cumulative distribution of errors, a line per localiser; None if no query was answered."""
    names = curve.columns[1:]

    def draw(axes: Axes) -> None:
        # A logarithmic axis has no zero: smaller errors are drawn as one metre.
        error = np.maximum(curve.numbers("error_m"), 1.0)
        end = max(100.0, float(error[-1]) * 1.3)
        for name, colour in zip(names, SERIES, strict=False):
            share = curve.numbers(name)
            axes.step([*error, end], [*share, share[-1]], where="post", color=colour, label=name)
        axes.axvline(radius_m, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(f"{radius_m:g} m", (radius_m, 3), (4, 0), textcoords="offset points", color=MUTED)
        axes.set(xscale="log", xlim=(1, end), ylim=(0, 102), xlabel="error, m", ylabel="queries, %")
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        if len(names) > 1:
            axes.legend(loc="upper left")

    caption = "Share of queries whose first answer is at most this far from the truth."
    return plot(curve, "error_cdf", "Error of the first answer", caption, draw)


def reliability_plot(curve: Curve) -> Plot | None:
    """Share of right answers over stated confidence; None without confidences."""

    def draw(axes: Axes) -> None:
        stated, right, count = (curve.numbers(name) for name in curve.columns)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(stated, right, color=SERIES[0])
        axes.scatter(
            stated, right, 25 + 250 * count / count.max(), color=SERIES[0], edgecolors=PANEL, zorder=3
        )
        axes.set(xlabel="stated confidence, %", ylabel="right, %", xlim=(-2, 102), ylim=(-2, 104))

    caption = "On the dashed line, answers are right as often as stated. Larger dots: more queries."
    return plot(curve, "reliability", "Reliability of the confidence", caption, draw)


def class_size_plot(curve: Curve) -> Plot | None:
    """LR@N by training images of the true cell; None if there are no queries."""
    tops = [name for name in curve.columns if name.startswith("LR@")][:2]

    def draw(axes: Axes) -> None:
        where = np.arange(len(curve))
        for name, colour in reversed(list(zip(tops, (SERIES[0], SHADE), strict=False))):
            axes.bar(where, curve.numbers(name), 0.7, color=colour, label=name)
        for place, count in zip(where, curve.column("queries"), strict=True):
            height = float(curve.numbers(tops[-1])[place])
            axes.annotate(
                f"{count:,}",
                (float(place), height),
                (0, 3),
                textcoords="offset points",
                ha="center",
                color=MUTED,
            )
        axes.set_xticks(where, [str(label).strip() for label in curve.column("images_in_cell")])
        axes.tick_params("x", labelsize=8.5 if len(curve) > 6 else 10)
        axes.set(xlabel="training images of the true cell", ylabel="within the radius, %", ylim=(0, 112))
        axes.set_yticks(range(0, 101, 20))
        axes.legend(loc="upper right", bbox_to_anchor=(1.02, 1.19), ncols=2, columnspacing=1, handlelength=1)

    caption = "LR by the training images of the true cell. The number above a bar counts its queries."
    return plot(curve, "by_class_size", "LR by class size", caption, draw)


def risk_plot(curve: Curve, *, calibrated: bool, threshold: float | None = None) -> Plot | None:
    """Wrong answers over the share of queries answered; None if no query was answered."""
    by = "confidence" if calibrated else "score"

    def draw(axes: Axes) -> None:
        coverage, wrong = curve.numbers("coverage_percent"), curve.numbers("wrong_percent")
        axes.plot(coverage, wrong, color=SERIES[2])
        axes.fill_between(coverage, wrong, color=SERIES[2], alpha=0.12, linewidth=0)
        answered = curve.numbers("threshold") >= (np.inf if threshold is None else threshold)
        if answered.any():
            last = int(np.flatnonzero(answered)[-1])
            axes.plot(coverage[last], wrong[last], "o", color=INK, markersize=6)
            axes.annotate(
                "abstains below",
                (coverage[last], wrong[last]),
                (-6, 9),
                textcoords="offset points",
                ha="right",
            )
        top = max(10.0, float(wrong.max()) * 1.15)
        axes.set(
            xlabel=f"queries answered, highest {by} first, %",
            ylabel="wrong answers, %",
            xlim=(0, 101),
            ylim=(0, top),
        )

    caption = (
        f"Share of wrong answers if only the queries with the highest {by} are answered. Lower is better."
    )
    return plot(curve, "risk_coverage", "Risk and coverage", caption, draw)
