"""The glossary in the guide, printed by `pipeline explain`."""

from __future__ import annotations

import pytest

from pipeline.cli import main
from pipeline.project.glossary import explain, read_glossary


def words(topic):
    return [word for rows in explain(read_glossary(), topic).values() for word, _ in rows]


def test_every_section_has_words():
    glossary = read_glossary()
    assert list(glossary) == [
        "Places",
        "Data",
        "metrics.json, details.json and report.html",
        "Output of train-heads",
    ]
    assert all(len(rows) > 4 for rows in glossary.values())
    assert not any("`" in text or "](" in text for rows in glossary.values() for row in rows for text in row)


@pytest.mark.parametrize("word", ["LR@N", "ceiling", "near cell", "ECE", "AURC", "risk at 50 %", "none"])
def test_words_of_the_metrics_are_explained(word):
    assert any(word in entry for entry in words("metrics"))


def test_a_word_is_found_in_any_section():
    assert words("masked") == ["masked"]
    assert words("near_cell") == ["near cell"]
    assert any("drawn" in entry for entry in words("train-heads"))
    assert words("nonsense") == []


def test_the_command_prints_the_glossary(capsys):
    for arguments, code in ((["explain", "metrics"], 0), (["explain"], 0), (["explain", "nonsense"], 1)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    shown = capsys.readouterr()
    assert "mean difference between confidence and the share of correct answers" in " ".join(
        shown.out.split()
    )
    assert "nonsense is not in the glossary: expected a word, or Places" in shown.err
