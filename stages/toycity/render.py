"""One photo of the city: sky, ground, walls, then what stands on the street."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stages.toycity.camera import Camera, cast
from stages.toycity.furniture import Furniture
from stages.toycity.ground import Ground
from stages.toycity.light import database_day, query_day
from stages.toycity.photo import Darkroom
from stages.toycity.sky import Sky
from stages.toycity.streets import City
from stages.toycity.visits import Shot
from stages.toycity.walls import Walls

_OVERSAMPLE = 1.5


class Renderer:
    """Draws shots of one city; what it keeps between shots only saves time."""

    def __init__(self, city: City, image_px: int) -> None:
        self._city = city
        self._side_px = round(image_px * _OVERSAMPLE)
        self._sky = Sky(city.seed)
        self._ground = Ground(city)
        self._walls = Walls(city)
        self._furniture = Furniture(city)
        self._darkroom = Darkroom(image_px)

    def photo(self, shot: Shot) -> bytes:
        """The shot as JPEG bytes, a function of the shot and the city alone."""
        day = query_day(shot.day) if shot.query else database_day(shot.day)
        camera = Camera(shot.x_m, shot.y_m, shot.eye_m, shot.heading_deg, shot.fov_deg, self._side_px)
        frame = self._sky.render(camera, day, shot.day & 0xFFFF)
        self._ground.paint(frame, camera, day)
        front, behind = cast(camera, self._city.blocks)
        self._walls.paint(frame, camera, day, front, behind)
        picture = Image.fromarray(frame).convert("RGB")
        self._furniture.draw(picture, camera, day, front.depth, shot)
        rng = np.random.default_rng((shot.day, shot.number))
        return self._darkroom.develop(picture, day, shot.tilt_deg, rng)
