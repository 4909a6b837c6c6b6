"""The program: a person's words, one stage call, a table.

`Localiser` is here for scripts: ``Localiser.load("models/localiser").locate("photo.jpg")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.locate.localiser import Answer, Localiser, Place

__all__ = ["Answer", "Localiser", "Place"]


def __getattr__(name: str) -> Any:
    """Import what a script asks for only when it asks: it brings torch with it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.locate import localiser

    return getattr(localiser, name)
