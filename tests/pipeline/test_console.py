"""Output on the terminal: names are plain text, whatever characters they hold."""

from __future__ import annotations

import pytest

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
