"""What holds for all tests of training."""

from __future__ import annotations

import pytest

from stages.train.loop import trainer


@pytest.fixture(autouse=True)
def progress_by_step_only(monkeypatch):
    """Report progress with lines of the log only: tests that interrupt count the reports."""
    monkeypatch.setattr(trainer, "PROGRESS_S", float("inf"))
