"""Walls in perspective: which facade each image column meets, and how it is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.toycity.camera import Camera, Day, Floats
from stages.toycity.facades import LEVELS, Atlas
from stages.toycity.streets import City
from stages.toycity.windows_and_doors import PX_PER_M

Ints = npt.NDArray[np.int32]
Frame = npt.NDArray[np.uint8]
_NO_WALL_M = 1.0e6
_REACH_M = 300.0
_OPAQUE = np.uint32(0x80000000)


@dataclass(frozen=True)
class Hits:
    """The wall that each column meets; `depth` exceeds `_NO_WALL_M` where there is none."""

    depth: Floats
    block: npt.NDArray[np.int64]
    face: npt.NDArray[np.int64]
    along_m: Floats

    @property
    def met(self) -> npt.NDArray[np.bool_]:
        """Columns that meet a wall, bool (side,)."""
        return self.depth < _NO_WALL_M


def cast_rays(camera: Camera, blocks: npt.NDArray[np.float64]) -> tuple[Hits, Hits]:
    """The first wall that each column meets, and the first wall of the next block behind it.

    Parameters
    ----------
    camera : Camera
    blocks : float64 (K, 4)
        West, south, east, north.
    """
    middle = (blocks[:, :2] + blocks[:, 2:]) / 2
    near = np.flatnonzero(np.hypot(middle[:, 0] - camera.x_m, middle[:, 1] - camera.y_m) < _REACH_M)
    box = (blocks[near] - np.array([camera.x_m, camera.y_m] * 2)).astype(np.float32)
    # Slab test of every ray against every block: a ray is inside where both axes are.
    dx, dy = camera.rays
    inverse_x = (1.0 / np.where(np.abs(dx) < 1e-6, 1e-6, dx))[:, None]
    inverse_y = (1.0 / np.where(np.abs(dy) < 1e-6, 1e-6, dy))[:, None]
    west, east = box[:, 0] * inverse_x, box[:, 2] * inverse_x
    south, north = box[:, 1] * inverse_y, box[:, 3] * inverse_y
    x_in, y_in = np.minimum(west, east), np.minimum(south, north)
    enter = np.maximum(x_in, y_in)
    leave = np.minimum(np.maximum(west, east), np.maximum(south, north))
    depths = np.where((enter < leave) & (enter > 0.05), enter, np.float32(2 * _NO_WALL_M))
    hits = []
    for _ in range(2):
        columns, nearest = np.arange(camera.side_px), depths.argmin(axis=1)
        depth, on_x = depths[columns, nearest], x_in[columns, nearest] > y_in[columns, nearest]
        face = np.where(on_x, np.where(dx > 0, 3, 1), np.where(dy > 0, 0, 2))
        x0, y0, x1, y1 = blocks[near[nearest]].T
        x, y = camera.x_m + dx * depth, camera.y_m + dy * depth
        along = np.choose(face, [x - x0, y - y0, x1 - x, y1 - y])
        hits.append(Hits(depth, near[nearest], face, along.astype(np.float32)))
        depths[columns, nearest] = 2 * _NO_WALL_M
    return hits[0], hits[1]


@dataclass(frozen=True)
class _Texture:
    """Per column: first texel of the mip level, its size in texels, texel along the wall, height, scale."""

    start: Ints
    columns: Ints
    rows: Ints
    along_px: Ints
    height_m: Floats
    px_per_m: Floats


class Walls:
    """Paints the walls of a city and keeps the facades it has drawn."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._atlas = Atlas(city)

    def paint(self, frame: Frame, camera: Camera, day: Day) -> Floats:
        """Paint all walls into `frame` (side, side, 4); return the depth of the first wall per column."""
        self._atlas.trim()
        front, behind = cast_rays(camera, self._city.blocks)
        texture = self._texture(front, camera)
        if behind.met.any():
            visible = np.flatnonzero(behind.met)
            # Only what rises above the lowest roof line of the front walls can be visible behind them.
            nearest = texture.height_m[visible] - camera.eye_m
            lowest = camera.horizon_px - float((nearest / front.depth[visible]).min()) * camera.focal_px
            # Between gables there is sky up to 3 m below the ridge.
            lowest += 3.0 / float(front.depth[visible].min()) * camera.focal_px
            span = slice(int(visible[0]), int(visible[-1]) + 1)
            rows = frame[: max(0, int(lowest) + 1)]
            self._paint(rows, camera, day, behind, self._texture(behind, camera), span)
        foot = camera.horizon_px + camera.eye_m * camera.focal_px / max(0.3, float(front.depth.min()))
        self._paint(frame[: int(foot) + 1], camera, day, front, texture, slice(0, camera.side_px))
        return front.depth

    def _paint(
        self, frame: Frame, camera: Camera, day: Day, hits: Hits, texture: _Texture, span: slice
    ) -> None:
        """Paint the columns in `span` of `frame`, which are the upper rows of the image."""
        depth, met = hits.depth[span], hits.met[span]
        above = camera.horizon_px - np.arange(len(frame), dtype=np.float32) - 0.5
        above /= np.float32(camera.focal_px)
        scale = texture.px_per_m[span]
        eye_px = (texture.height_m[span] - np.float32(camera.eye_m)) * scale
        row = np.floor(eye_px - above[:, None] * np.where(met, depth * scale, 0)).astype(np.int32)
        inside = (row >= 0) & (row < texture.rows[span]) & met
        np.clip(row, 0, texture.rows[span] - 1, out=row)
        row *= texture.columns[span]
        row += texture.start[span] + texture.along_px[span]
        texels = self._atlas.texels.take(row)
        inside &= texels >= _OPAQUE
        haze = 1.0 - np.exp(-depth / np.float32(day.sight_m))
        light = np.zeros((len(depth), 4), np.uint16)
        light[:, :3] = np.minimum(255.0, _wall_light(day)[hits.face[span]] * (1.0 - haze)[:, None] * 128)
        air = np.zeros((len(depth), 4), np.uint16)
        air[:, :3] = haze[:, None] * day.horizon
        # Light in units of 1/128 keeps the product within 16 bits, several times faster than floats.
        lit = texels.view(np.uint8).reshape(*texels.shape, 4) * light
        lit >>= 7
        lit += air
        colour = np.minimum(lit, 255).astype(np.uint8).view(np.uint32)[..., 0]
        np.copyto(frame.view(np.uint32)[:, span, 0], colour, where=inside)

    def _texture(self, hits: Hits, camera: Camera) -> _Texture:
        """Find the facade of each column in the atlas."""
        start, columns, rows, along = (np.ones(camera.side_px, np.int32) for _ in range(4))
        height = np.ones(camera.side_px, np.float32)
        level = _mip_levels(hits, camera)
        faces = hits.block * 4 + hits.face
        for face in np.unique(faces[hits.met]).tolist():
            on_face = np.flatnonzero((faces == face) & hits.met)
            borders = self._city.lots(face // 4, face % 4)
            lots = np.searchsorted(borders, hits.along_m[on_face], side="right") - 1
            lots = np.clip(lots, 0, len(borders) - 2)
            for lot in np.unique(lots).tolist():
                on_lot = on_face[lots == lot]
                facade = self._atlas.facade(face // 4, face % 4, lot, borders)
                levels = level[on_lot]
                start[on_lot], columns[on_lot] = facade.start[levels], facade.columns[levels]
                rows[on_lot], height[on_lot] = facade.rows[levels], facade.height_m
                texel = (hits.along_m[on_lot] - borders[lot]) * PX_PER_M / 2.0**levels
                along[on_lot] = np.clip(texel, 0, facade.columns[levels] - 1)
        return _Texture(start, columns, rows, along, height, (PX_PER_M / 2.0**level).astype(np.float32))


def _mip_levels(hits: Hits, camera: Camera) -> Ints:
    """Mip level per column: the geometric mean of a pixel's width and height on the wall."""
    pixel_m = hits.depth / np.float32(camera.focal_px)
    step_m = np.clip(np.abs(np.gradient(hits.along_m)), pixel_m, 6 * pixel_m)
    texels = np.sqrt(step_m * pixel_m) * PX_PER_M
    return np.asarray(np.clip(np.log2(np.maximum(texels, 1e-3)) + 0.3, 0, LEVELS - 1), np.int32)


def _wall_light(day: Day) -> Floats:
    """Light on walls that face south, east, north and west, float32 (4, 3)."""
    normals = np.array([180.0, 90.0, 0.0, 270.0])
    facing = np.maximum(0.0, np.cos(np.deg2rad(normals - day.sun_deg))).astype(np.float32)
    # Without sun the four sides still differ a little, because the sky is not uniform.
    side = np.array([1.0, 0.96, 0.9, 0.94], np.float32)
    return side[:, None] * day.ambient + facing[:, None] * day.sun
