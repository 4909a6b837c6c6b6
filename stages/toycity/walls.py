"""Facades in perspective: which texel each pixel of a frame shows, and in what light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.toycity.atlas import LEVELS, Atlas
from stages.toycity.camera import Camera, Floats, Hits
from stages.toycity.facade import PX_PER_M
from stages.toycity.light import Day, wall_light
from stages.toycity.streets import City

Ints = npt.NDArray[np.int32]
Frame = npt.NDArray[np.uint8]
_OPAQUE = np.uint32(0x80000000)


@dataclass(frozen=True)
class _Lookup:
    """Per column: where the facade's mip level starts, columns, rows, texel along, height, scale."""

    start: Ints
    columns: Ints
    rows: Ints
    along_px: Ints
    height_m: Floats
    px_per_m: Floats


class Walls:
    """Paints facades; keeps those it has met."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._atlas = Atlas(city)

    def paint(self, frame: Frame, camera: Camera, day: Day, front: Hits, behind: Hits) -> None:
        """Paint the walls of `front`, and what of `behind` looks over them, into `frame` (side, side, 4)."""
        self._atlas.trim()
        look = self._lookup(front, camera)
        if behind.met.any():
            over = np.flatnonzero(behind.met)
            # Behind a wall only what is above its lowest roof line can show.
            nearest = look.height_m[over] - camera.eye_m
            lowest = camera.horizon_px - float((nearest / front.depth[over]).min()) * camera.focal_px
            # Gables leave sky between the walls below their ridge.
            lowest += 3.0 / float(front.depth[over].min()) * camera.focal_px
            span = slice(int(over[0]), int(over[-1]) + 1)
            self._paint(frame, camera, day, behind, self._lookup(behind, camera), span, int(lowest) + 1)
        foot = camera.horizon_px + camera.eye_m * camera.focal_px / max(0.3, float(front.depth.min()))
        self._paint(frame, camera, day, front, look, slice(0, camera.side_px), int(foot) + 1)

    def _paint(
        self, frame: Frame, camera: Camera, day: Day, hits: Hits, look: _Lookup, span: slice, last: int
    ) -> None:
        """Paint rows up to `last` of the columns in `span`."""
        last = max(0, min(camera.side_px, last))
        depth = hits.depth[span]
        above = (camera.horizon_px - np.arange(last, dtype=np.float32) - 0.5) / np.float32(camera.focal_px)
        scale = look.px_per_m[span]
        eye_px = (look.height_m[span] - np.float32(camera.eye_m)) * scale
        row = np.floor(eye_px - above[:, None] * np.where(hits.met[span], depth * scale, 0)).astype(np.int32)
        inside = (row >= 0) & (row < look.rows[span]) & hits.met[span]
        np.clip(row, 0, look.rows[span] - 1, out=row)
        row *= look.columns[span]
        row += look.start[span] + look.along_px[span]
        texels = self._atlas.pixels.take(row)
        inside &= texels >= _OPAQUE
        haze = 1.0 - np.exp(-depth / np.float32(day.sight_m))
        light = np.zeros((len(depth), 4), np.uint16)
        light[:, :3] = np.minimum(255.0, wall_light(day)[hits.face[span]] * (1.0 - haze)[:, None] * 128)
        air = np.zeros((len(depth), 4), np.uint16)
        air[:, :3] = haze[:, None] * day.horizon
        # Light in 1/128 keeps the product within 16 bits, which is several times faster than floats.
        lit = texels.view(np.uint8).reshape(*texels.shape, 4) * light
        lit >>= 7
        lit += air
        colour = np.minimum(lit, 255).astype(np.uint8).view(np.uint32)[..., 0]
        np.copyto(frame.view(np.uint32)[:last, span, 0], colour, where=inside)

    def _lookup(self, hits: Hits, camera: Camera) -> _Lookup:
        side = camera.side_px
        start, columns, rows, along = (np.ones(side, np.int32) for _ in range(4))
        height = np.ones(side, np.float32)
        level = _levels(hits, camera)
        keys = hits.block * 4 + hits.face
        for key in np.unique(keys[hits.met]).tolist():
            chosen = np.flatnonzero((keys == key) & hits.met)
            borders = self._city.lots(key // 4, key % 4)
            lots = np.searchsorted(borders, hits.along_m[chosen], side="right") - 1
            lots = np.clip(lots, 0, len(borders) - 2)
            for lot in np.unique(lots).tolist():
                here = chosen[lots == lot]
                facade = self._atlas.facade(key // 4, key % 4, lot, borders)
                steps = level[here]
                start[here], columns[here] = facade.start[steps], facade.columns[steps]
                rows[here], height[here] = facade.rows[steps], facade.height_m
                texel = (hits.along_m[here] - borders[lot]) * PX_PER_M / 2.0**steps
                along[here] = np.clip(texel, 0, facade.columns[steps] - 1)
        return _Lookup(start, columns, rows, along, height, (PX_PER_M / 2.0**level).astype(np.float32))


def _levels(hits: Hits, camera: Camera) -> Ints:
    """Mip level per column: the geometric mean of a pixel's width and height on the wall."""
    pixel_m = hits.depth / np.float32(camera.focal_px)
    step_m = np.clip(np.abs(np.gradient(hits.along_m)), pixel_m, 6 * pixel_m)
    texels = np.sqrt(step_m * pixel_m) * PX_PER_M
    return np.asarray(np.clip(np.log2(np.maximum(texels, 1e-3)) + 0.3, 0, LEVELS - 1), np.int32)
