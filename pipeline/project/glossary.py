"""The glossary of docs/guide.md, the only source of what the words in metrics, reports and tables mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

Glossary = Mapping[str, list[tuple[str, str]]]
"""Section -> its words and their meanings."""

_HEADING, _ROW = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"\| (.+?) \| (.+) \|")


def read_glossary() -> Glossary:
    """Return the glossary of the shipped guide: a wheel holds it inside the package, a checkout in docs."""
    packaged = Path(__file__).parent / "files" / "guide.md"
    guide = packaged if packaged.exists() else Path(__file__).parents[2] / "docs" / "guide.md"
    text = guide.read_text(encoding="utf-8").partition("\n## Glossary\n")[2]
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            rows = sections.setdefault(_plain(heading[1]), [])
        elif (row := _ROW.fullmatch(line)) and row[1] != "word":
            rows.append((_plain(row[1]), _plain(row[2])))
    return sections


def explain(glossary: Glossary, topic: str) -> Glossary:
    """Return the sections whose titles contain `topic`; if none does, the words that contain it."""
    wanted = topic.lower().replace("_", " ")
    if sections := {title: rows for title, rows in glossary.items() if wanted in title.lower()}:
        return sections
    found = {title: [row for row in rows if wanted in row[0].lower()] for title, rows in glossary.items()}
    return {title: rows for title, rows in found.items() if rows}


def _plain(text: str) -> str:
    """Return Markdown without code marks and link targets."""
    return re.sub(r"\[(.+?)\]\(.+?\)", r"\1", text.replace("`", ""))
