"""The tables behind the plots against hand computation, and the figures."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.eval.metrics.reliability import reliability
from stages.eval.plots import curves
from stages.eval.plots.curves import Curve
from stages.eval.plots.plots import class_size_plot, error_plot, recall_plot, reliability_plot, risk_plot

ERRORS = np.array([3.0, 40.0, np.inf, 10.0])
RIGHT = ERRORS <= 25


def test_error_curve_stays_below_100_without_an_answer():
    curve = curves.error_curve({"classify": ERRORS, "hybrid": np.array([1.0, 10.0, 40.0, 60.0])})
    assert curve.columns == ("error_m", "classify", "hybrid")
    assert curve.rows == ((1, 0, 25), (3, 25, 25), (10, 50, 50), (40, 75, 75), (60, 75, 100))
    assert curves.error_curve({"classify": np.full(3, np.inf)}).rows == ()


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=600))
def test_error_curve_is_bounded_rising_and_exact_at_points(errors):
    errors = np.array(errors)
    curve = curves.error_curve({"classify": errors})
    at, share = curve.numbers("error_m"), curve.numbers("classify")
    assert len(curve) <= curves.POINTS
    assert (np.diff(at) >= 0).all()
    assert share[-1] == 100
    for place, value in zip(at, share, strict=True):
        assert value <= 100 * (errors <= place + 0.005).mean() + 1e-3


def test_reliability_by_hand():
    confidence = np.array([0.05, 0.09, 0.95, np.nan, 1.0, 0.5])
    right = np.array([False, True, True, False, True, False])
    curve = curves.reliability_curve(confidence, right)
    assert curve.rows == ((7.0, 50.0, 2), (50.0, 0.0, 1), (97.5, 100.0, 2))
    assert reliability(confidence, right).error == pytest.approx((2 * 43 + 50 + 2 * 2.5) / 5)
    assert curves.reliability_curve(None, right).rows == ()
    assert np.isnan(reliability(confidence[3:4], right[3:4]).error)


def test_risk_and_coverage_by_hand():
    trust = np.array([0.9, 0.2, -np.inf, 0.5, 0.5])
    right = np.array([True, False, False, False, True])
    curve = curves.risk_coverage_curve(trust, right)
    # The two of equal trust come together; the query without an answer is never given.
    assert curve.rows == ((20.0, 0.0, 0.9), (60.0, 33.333, 0.5), (80.0, 50.0, 0.2))
    assert curves.risk_coverage_curve(np.full(2, -np.inf), right[:2]).rows == ()


def test_class_sizes_double():
    images = np.array([0, 1, 2, 3, 4, 9, 9])
    hits = np.array([False, True, True, False, True, True, False])
    curve = curves.class_size_curve(images, {1: hits, 5: np.ones(7, bool)})
    assert curve.columns == ("images_in_cell", "queries", "LR@1", "LR@5")
    assert [row[:3] for row in curve.rows] == [
        ("no class", 1, 0.0),
        ("1", 1, 100.0),
        ("2–3", 2, 50.0),
        ("4–7", 1, 100.0),
        ("8–15", 2, 50.0),
    ]
    assert curve.column("LR@5") == [100.0] * 5
    many = curves.class_size_curve(np.array([1, 5, 20, 200]), {1: np.ones(4, bool)})
    labels = many.column("images_in_cell")
    assert labels == sorted(labels) == ["  1", "  4–7", " 16–31", "128–255"]


def test_tables_round_trip_through_csv(tmp_path):
    curve = Curve(("n", "recall"), ((1, 50.0), (2, 62.5)))
    curve.save(tmp_path / "lr_curve.csv")
    rows = list(csv.DictReader((tmp_path / "lr_curve.csv").read_text().splitlines()))
    assert rows == [{"n": "1", "recall": "50.0"}, {"n": "2", "recall": "62.5"}]
    np.testing.assert_array_equal(
        curves.read_recall_curve(tmp_path / "lr_curve.csv").numbers("recall"), [50, 62.5]
    )
    assert curves.read_recall_curve(tmp_path / "absent.csv").rows == ()
    curve.save(tmp_path / "lr_curve.csv", ["recall", "hybrid"])
    assert (tmp_path / "lr_curve.csv").read_text() == "n,recall,hybrid\n1,50.0,nan\n2,62.5,nan\n"
    assert curves.read_recall_curve(tmp_path / "lr_curve.csv").columns == ("n", "recall")


@pytest.fixture(scope="module")
def plots():
    confidence = np.array([0.9, 0.3, np.nan, 0.7])
    return [
        recall_plot(Curve(("n", "classify", "hybrid"), ((1, 50.0, 60.0), (2, 62.5, 70.0))), 25.0),
        error_plot(curves.error_curve({"classify": ERRORS}), 25.0),
        reliability_plot(curves.reliability_curve(confidence, RIGHT)),
        class_size_plot(curves.class_size_curve(np.array([4, 4, 0, 9]), {1: RIGHT, 5: RIGHT})),
        risk_plot(curves.risk_coverage_curve(confidence, RIGHT), calibrated=True, threshold=0.5),
    ]


def test_figures_are_pictures(plots, tmp_path):
    for plot in plots[:2]:
        plot.save_png(tmp_path)
        with Image.open(tmp_path / f"{plot.name}.png") as image:
            grey = np.asarray(image.convert("L"))
            assert image.size == (920, 640)
            assert grey.min() < 60 < 250 < grey.max()


def test_svg_is_well_formed_themed_and_unique(plots):
    seen: set[str] = set()
    for plot in plots:
        text = plot.svg()
        root = ElementTree.fromstring(text)
        texts = " ".join("".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text"))
        assert plot.title in texts
        assert "var(--ink)" in text
        ids = {node.get("id") for node in root.iter() if node.get("id")}
        assert not ids & seen
        seen |= ids
    assert plots[0].svg() == plots[0].svg()


def test_there_is_no_plot_without_data():
    none = curves.reliability_curve(None, RIGHT)
    assert reliability_plot(none) is None
    assert error_plot(curves.error_curve({"classify": np.array([])}), 25.0) is None
    assert risk_plot(curves.risk_coverage_curve(np.array([]), RIGHT[:0]), calibrated=False) is None
    assert recall_plot(Curve(("n", "recall"), ()), 25.0) is None
