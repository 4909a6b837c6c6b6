"""Who may ask, and what every response carries: the token, security headers, counts."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.metrics import Metrics

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data: blob:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: no request leaves for another host."""
# The page of answers carries a stricter policy inside, with the digest of its only script.
_POLICY = "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_bearer, _basic = HTTPBearer(auto_error=False), HTTPBasic(auto_error=False)


def require_token(token: str) -> Callable[..., None]:
    """Return a dependency that rejects requests without the token.

    It is a bearer token, or the password of any user, for which browsers ask by themselves.
    """

    def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        basic: Annotated[HTTPBasicCredentials | None, Depends(_basic)],
    ) -> None:
        given = bearer.credentials if bearer else basic.password if basic else ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "a token is needed", {"WWW-Authenticate": 'Basic realm="placecache"'})

    return check


class Guard:
    """Adds security headers to every response; counts and times requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", _POLICY)
                self._metrics.requests.labels(path, str(message["status"])).inc()
                if scope["method"] == "POST":
                    self._metrics.seconds.observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, send_guarded)
