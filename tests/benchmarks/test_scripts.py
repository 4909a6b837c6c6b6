"""The benchmarks are not run here, only imported: most break because a name they import has moved."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_benchmarks_import(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    if name == "bench_peers":
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # set at import; undo it for other tests
        pytest.importorskip("faiss")
    assert importlib.import_module(name)
