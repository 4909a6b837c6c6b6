"""The routes of `pipeline serve`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata, resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response

from pipeline.locate.formats import as_json
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.map_page import map_page
from pipeline.locate.near import Near
from pipeline.serve.album import UploadAlbum
from pipeline.serve.answering import MOST_IN_BATCH, Answering
from pipeline.serve.guard import PAGE_POLICY, Guard, require_token
from pipeline.serve.limits import Limits, UploadMemory
from pipeline.serve.metrics import Metrics
from pipeline.serve.openapi import ANSWERS, MAP, PLAIN, photos_body
from pipeline.serve.uploads import Upload, read_uploads
from stages.errors import InputError
from stages.eval.report.base_map import BaseMap
from stages.eval.report.page import asset

_ASSETS = {"/page.css": "text/css", "/upload.css": "text/css", "/upload.js": "text/javascript"}
Top = Annotated[int, Query(ge=1, le=1000, description="Number of places for each photo.")]
Where = Annotated[
    str | None, Query(description="LAT,LON,RADIUS: all photos were taken within RADIUS metres of a position.")
]


class Service:
    """Answers requests with one localiser."""

    def __init__(self, localiser: PhotoLocaliser, limits: Limits) -> None:
        self.localiser = localiser
        self.limits = limits
        self.metrics = Metrics(MOST_IN_BATCH)
        self.answering = Answering(localiser, limits, self.metrics)
        self.memory = UploadMemory()

    async def locate(self, request: Request, top: Top = 5, near: Where = None) -> Response:
        """Return a JSON list with one object for each photo, as `pipeline locate --format json`."""
        circle = self._circle(near)
        async with self._uploads(request) as uploads:
            outcomes = await self.answering.outcomes(uploads, top=top, near=circle)
            return Response(as_json(outcomes), media_type="application/json")

    async def map(self, request: Request, top: Top = 5, near: Where = None) -> Response:
        """Return a page with a map of all photos, as `pipeline locate --map`."""
        circle = self._circle(near)
        async with self._uploads(request) as uploads:
            outcomes = await self.answering.outcomes(uploads, top=top, near=circle)
            arguments = (self.localiser.trained, outcomes, BaseMap(), partial(UploadAlbum, uploads))
            loop = asyncio.get_running_loop()
            page = await loop.run_in_executor(self.answering.threads, map_page, *arguments)
            return Response(page, media_type="text/html")

    async def health(self) -> dict[str, Any]:
        """Return what is served."""
        trained = self.localiser.trained
        return {"status": "ok", "places": len(trained.places), "backbone": trained.recipe.backbone}

    async def read_metrics(self) -> Response:
        """Return counts and times in the text format of Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def page(self) -> Response:
        """Return the page for people."""
        text = page_file("upload.html").replace("{{ photos }}", str(self.limits.photos))
        return Response(text, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})

    async def page_asset(self, request: Request) -> Response:
        """Return style or script of the page."""
        path = request.url.path
        text = asset("page.css") if path == "/page.css" else page_file(path[1:])
        return Response(text, media_type=_ASSETS[path])

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """End the threads with the service."""
        yield
        self.answering.close()

    @asynccontextmanager
    async def _uploads(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Yield the photos of a request, which has limited time and memory until the block ends."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                with self.memory.share() as share:
                    yield await read_uploads(request, self.limits, share)
        except TimeoutError:
            raise HTTPException(503, f"not finished within {self.limits.seconds:g} s") from None

    def _circle(self, near: str | None) -> Near | None:
        """Return the circle if there are places in it: an error later would end a batch of other photos."""
        if near is None:
            return None
        try:
            circle = Near.parse(near)
            self.localiser.prior(circle)
        except InputError as error:
            raise HTTPException(422, str(error)) from None
        return circle


def page_file(name: str) -> str:
    """Return the text of a file of the page."""
    return (resources.files("pipeline.serve") / "page" / name).read_text(encoding="utf-8")


def make_app(localiser: PhotoLocaliser, limits: Limits, token: str | None = None) -> FastAPI:
    """Return the application; /health, /openapi.json, styles and scripts need no token."""
    service = Service(localiser, limits)
    # The interactive pages of FastAPI load scripts from another host, so they are off.
    app = FastAPI(
        title="placecache",
        description="Find out where in a city photos were taken.",
        version=metadata.version("placecache"),
        docs_url=None,
        redoc_url=None,
        lifespan=service.lifespan,
    )
    guarded: dict[str, Any] = {"dependencies": [Depends(require_token(token))] if token else []}
    photos: dict[str, Any] = {"methods": ["POST"], "openapi_extra": photos_body(limits.photos), **guarded}
    app.add_api_route("/locate", service.locate, responses=ANSWERS, **photos)
    app.add_api_route("/map", service.map, responses=MAP, **photos)
    app.add_api_route("/metrics", service.read_metrics, responses=PLAIN, **guarded)
    app.add_api_route("/health", service.health)
    app.add_api_route("/", service.page, include_in_schema=False, **guarded)
    for path in _ASSETS:
        app.add_api_route(path, service.page_asset, include_in_schema=False)
    app.add_middleware(Guard, metrics=service.metrics, paths=frozenset({"/", "/locate", "/map"}))
    return app
