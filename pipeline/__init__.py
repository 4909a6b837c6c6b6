"""The command line; for scripts, `Localiser.load("models/localiser").locate("photo.jpg")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.locate.answer import Answer, Candidate
    from pipeline.locate.localiser import PhotoLocaliser as Localiser
    from pipeline.locate.near import Near

__all__ = ["Answer", "Candidate", "Localiser", "Near"]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use, because it brings torch with it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.locate.answer import Answer, Candidate
    from pipeline.locate.localiser import PhotoLocaliser
    from pipeline.locate.near import Near

    return {"Answer": Answer, "Candidate": Candidate, "Localiser": PhotoLocaliser, "Near": Near}[name]
