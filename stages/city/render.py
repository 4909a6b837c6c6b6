"""One photo of the city: sky, the street behind, the street in front, ground, then what stands on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.city.atlas import LEVELS, Atlas
from stages.city.camera import Camera, Floats, Hits, cast
from stages.city.facade import PX_PER_M
from stages.city.furniture import Furniture
from stages.city.ground import Ground
from stages.city.light import Day, database_day, query_day, wall_light
from stages.city.photo import develop
from stages.city.sky import Sky
from stages.city.streets import City
from stages.city.visits import Shot

_OVERSAMPLE = 2


class Renderer:
    """Draws shots of one city; what it keeps between shots only saves time."""

    def __init__(self, city: City, image_px: int) -> None:
        self._city = city
        self._image_px = image_px
        self._atlas = Atlas(city)
        self._ground = Ground(city)
        self._sky = Sky(city.seed)
        self._furniture = Furniture(city)

    def photo(self, shot: Shot) -> bytes:
        """The shot as JPEG bytes, a function of the shot and the city alone."""
        self._atlas.trim()
        day = query_day(shot.day) if shot.query else database_day(shot.day)
        side = self._image_px * _OVERSAMPLE
        camera = Camera(shot.x_m, shot.y_m, shot.eye_m, shot.heading_deg, shot.fov_deg, side)
        front, behind = cast(camera, self._city.blocks)
        frame = self._sky.render(camera, day, shot.day & 0xFFFF)
        self._floor(frame, camera, day)
        self._walls(frame, camera, day, behind)
        self._walls(frame, camera, day, front)
        picture = Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
        self._furniture.draw(picture, camera, day, front.depth, shot)
        return develop(
            picture, day, self._image_px, shot.tilt_deg, np.random.default_rng((shot.day, shot.number))
        )

    def _walls(self, frame: Floats, camera: Camera, day: Day, hits: Hits) -> None:
        """Paint the facades that the columns meet into the frame."""
        start, columns, rows, along_px, height_m, level = self._lookup(hits, camera)
        last = int(camera.horizon_px + camera.eye_m * camera.focal_px / max(0.3, float(hits.depth.min()))) + 1
        last = min(camera.side_px, last)
        above = (camera.horizon_px - np.arange(last, dtype=np.float32) - 0.5) / np.float32(camera.focal_px)
        down_m = (height_m - camera.eye_m)[None, :] - above[:, None] * hits.depth[None, :]
        row = (down_m * (PX_PER_M / 2.0**level).astype(np.float32)).astype(np.int32)
        inside = (down_m >= 0) & (down_m < height_m) & hits.met
        np.clip(row, 0, rows - 1, out=row)
        texels = self._atlas.pixels[start + row * columns + along_px]
        rgba = texels.view(np.uint8).reshape(*texels.shape, 4)
        inside &= rgba[..., 3] > 127
        haze = 1.0 - np.exp(-hits.depth / np.float32(day.sight_m))
        light = wall_light(day)[hits.face] * (1.0 - haze)[:, None]
        lit = rgba[..., :3] * light + haze[:, None] * day.horizon
        np.copyto(frame[:last], lit, where=inside[..., None])

    def _lookup(self, hits: Hits, camera: Camera) -> tuple[npt.NDArray[np.int32], ...]:
        """Per column: start, columns, rows of the mip level to read; texel along; height; level."""
        side = camera.side_px
        start, columns, rows, along = (np.ones(side, np.int32) for _ in range(4))
        height = np.ones(side, np.float32)
        pixel_m = hits.depth / np.float32(camera.focal_px)
        step_m = np.maximum(np.abs(np.gradient(hits.along_m)), pixel_m)
        coarse = np.sqrt(np.minimum(step_m, 6 * pixel_m) * pixel_m) * PX_PER_M
        level = np.clip(np.log2(np.maximum(coarse, 1e-3)) + 0.3, 0, LEVELS - 1).astype(np.int32)
        keys = hits.block * 4 + hits.face
        for key in np.unique(keys[hits.met]).tolist():
            block, face = divmod(key, 4)
            chosen = np.flatnonzero((keys == key) & hits.met)
            borders = self._city.lots(block, face)
            lots = np.clip(
                np.searchsorted(borders, hits.along_m[chosen], side="right") - 1, 0, len(borders) - 2
            )
            for lot in np.unique(lots).tolist():
                here = chosen[lots == lot]
                facade = self._atlas.facade(block, face, lot, borders)
                steps = level[here]
                texel = (hits.along_m[here] - borders[lot]) * PX_PER_M / 2.0**steps
                start[here], columns[here], rows[here] = (
                    facade.start[steps],
                    facade.columns[steps],
                    facade.rows[steps],
                )
                along[here] = np.clip(texel, 0, facade.columns[steps] - 1)
                height[here] = facade.height_m
        return start, columns, rows, along, height, level  # type: ignore[return-value]

    def _floor(self, frame: Floats, camera: Camera, day: Day) -> None:
        """Paint the ground below the horizon; walls come after it and stand on it."""
        ground = self._ground.render(camera, day)
        rows = np.arange(camera.side_px - len(ground), camera.side_px) + 0.5 - camera.horizon_px
        depth = camera.eye_m * camera.focal_px / rows
        haze = (1.0 - np.exp(-depth / day.sight_m)).astype(np.float32)[:, None, None]
        frame[-len(ground) :] = ground * (1.0 - haze) + haze * day.horizon
