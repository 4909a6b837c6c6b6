"""Output on the terminal: names are plain text, whatever characters they hold."""

from __future__ import annotations

import re
import time

import pytest
from rich.progress import Progress

from pipeline import console

NAME = "album[/x] [red]:car:[link=a]\\[b]\x1b[31m\x07.jpg"
SHOWN = "album[/x] [red]:car:[link=a]\\[b]\ufffd[31m\ufffd.jpg"


@pytest.mark.parametrize(
    "show",
    [
        console.line,
        lambda name: console.facts(name, [("a", 1)]),
        lambda name: console.facts("title", [(name, 1)]),
        lambda name: console.facts("title", [("a", name)]),
        lambda name: console.table(name, ["column", "other"], [["a" * 60, 1]]),
        lambda name: console.table("title", [name], [["a"]]),
        lambda name: console.table("title", ["column"], [[name]]),
        lambda name: console.finding("ok", name, "text", "remedy"),
        lambda name: console.finding("ok", "subject", name, "remedy"),
        lambda name: console.finding("ok", "subject", "text", name),
    ],
)
def test_names_are_never_markup(capsys, show):
    show(NAME)
    assert SHOWN in capsys.readouterr().out


def test_errors_are_one_line_of_plain_text(capsys):
    console.error(f"{NAME}\nnext line")
    assert f"error: {SHOWN} next line\n" in capsys.readouterr().err


def test_progress_takes_any_name(capsys):
    with console.progress("album[/x]") as bar:
        bar.note("[red]")
        bar(1, 2)
        console.out.print(bar._bar.get_renderable())
    assert "album[/x]" in (shown := capsys.readouterr().out)
    assert "[red]" in shown


def test_a_log_shows_progress_speed_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(console, "LOG_S", 0.01)
    with console.progress("train", unit="steps") as bar:
        time.sleep(0.1)
        bar(1000, 9000)  # done before: the speed is measured from here
        time.sleep(0.2)
        bar(3000, 9000)
        bar.note("loss 0.1")
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: preparing for 0 s"
    assert re.fullmatch(r"train: 3,000 / 9,000 steps, [\d,]+ steps/s, \d s left, loss 0\.1", lines[-1])
    assert 2000 < int(re.search(r"([\d,]+) steps/s", lines[-1])[1].replace(",", "")) < 10_000
    console.line("later")
    assert capsys.readouterr().err == ""


def test_a_new_pass_has_a_speed_of_its_own():
    bar = console.ProgressBar(Progress(disable=True), "train", "steps")
    bar(900, 1000)
    bar(1000, 1000)
    bar(0, 500)
    assert bar.line() == "train: 0 / 500 steps"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (12_000, "3 h 20 min")],
)
def test_a_duration_is_short(seconds, shown):
    assert console.duration(seconds) == shown


def test_a_page_is_shown_as_a_link(capsys, tmp_path):
    console.link(tmp_path / "my city" / "report.html")
    assert capsys.readouterr().out == f"{tmp_path.as_uri()}/my%20city/report.html\n"
