"""What OpenAPI says of requests and responses that FastAPI cannot read from the code."""

from __future__ import annotations

from typing import Any

from pipeline.serve.uploads import FIELD

_NUMBER, _TEXT, _YES_OR_NO = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_POSITION = {
    "latitude": _NUMBER_OR_NULL,
    "longitude": _NUMBER_OR_NULL,
    "utm_east": _NUMBER,
    "utm_north": _NUMBER,
    "zone": _TEXT,
}
_ALIKE = {"photo": _TEXT, "likeness": _NUMBER, "utm_east": _NUMBER, "utm_north": _NUMBER}
_PLACE = {
    "type": "object",
    "required": [*_POSITION, "score", "class_id", "images", "alike"],
    "properties": {
        **_POSITION,
        "score": _NUMBER,
        "class_id": {"type": "integer"},
        "images": {"type": "integer"},
        "alike": {
            "type": "array",
            "items": {"type": "object", "required": [*_ALIKE], "properties": _ALIKE},
        },
    },
}
_EXIF = {"latitude": _NUMBER, "longitude": _NUMBER, "distance_m": _NUMBER_OR_NULL}
_ANSWER = {
    "type": "object",
    "required": ["photo", *_POSITION, "confidence", "abstained", "reason", "exif", "places"],
    "properties": {
        "photo": _TEXT,
        **_POSITION,
        "confidence": _NUMBER_OR_NULL,
        "abstained": _YES_OR_NO,
        "reason": _TEXT,
        "exif": {"type": ["object", "null"], "properties": _EXIF},
        "places": {"type": "array", "minItems": 1, "items": _PLACE},
    },
}
_UNREADABLE = {
    "type": "object",
    "required": ["photo", "error"],
    "properties": {"photo": _TEXT, "error": _TEXT},
    "additionalProperties": False,
}


def _errors(*statuses: tuple[int, str]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}
    return {
        status: {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in statuses
    }


def _content(kind: str, schema: dict[str, Any], text: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": text, "content": {kind: {"schema": schema}}}}


_ERRORS = _errors(
    (400, "The body is damaged"),
    (401, "The token is missing or wrong"),
    (413, "Too many photos or bytes"),
    (415, "The body is not multipart/form-data"),
    (422, "A parameter is not valid, or there is no photo"),
    (503, "Out of time, or too many photos at once: try again"),
)
ANSWERS = _ERRORS | _content(
    "application/json",
    {"type": "array", "items": {"oneOf": [_ANSWER, _UNREADABLE]}},
    "One object for each photo, in their order",
)
MAP = _ERRORS | _content("text/html", _TEXT, "A self-contained page")
PLAIN = _content("text/plain", _TEXT, "Metrics in the text format of Prometheus") | _errors(
    (401, "The token is missing or wrong")
)


def photos_body(most: int) -> dict[str, Any]:
    """Return the description of a body with up to `most` photos."""
    photos = {
        "type": "array",
        "minItems": 1,
        "maxItems": most,
        "items": {"type": "string", "format": "binary"},
    }
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: photos}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
