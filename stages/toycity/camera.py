"""A pinhole camera in the street grid: what each column of the image meets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_FAR_M = 1.0e6
_REACH_M = 300.0
HORIZON = 0.71


@dataclass(frozen=True)
class Camera:
    """Position (local metres), heading, lens, frame side in pixels; always level: walls stay upright."""

    x_m: float
    y_m: float
    eye_m: float
    heading_deg: float
    fov_deg: float
    side_px: int

    @property
    def focal_px(self) -> float:
        """Focal length."""
        return self.side_px / 2 / float(np.tan(np.deg2rad(self.fov_deg) / 2))

    @property
    def horizon_px(self) -> float:
        """Row of the horizon: below the middle, so that more of the houses shows."""
        return self.side_px * HORIZON

    @property
    def forward(self) -> tuple[float, float]:
        """Unit vector of the view."""
        angle = np.deg2rad(self.heading_deg)
        return float(np.sin(angle)), float(np.cos(angle))

    def rays(self) -> tuple[Floats, Floats]:
        """Directions (dx, dy) of the columns' rays, of depth 1, each (side,)."""
        fx, fy = self.forward
        across = (np.arange(self.side_px) + 0.5 - self.side_px / 2) / self.focal_px
        return (fx + across * fy).astype(np.float32), (fy - across * fx).astype(np.float32)

    def project(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Image x, image y and depth of points (n, 3) given as local x, y, height."""
        fx, fy = self.forward
        dx, dy = points[:, 0] - self.x_m, points[:, 1] - self.y_m
        depth = dx * fx + dy * fy
        safe = np.maximum(depth, 1e-3)
        column = self.side_px / 2 + (dx * fy - dy * fx) / safe * self.focal_px
        row = self.horizon_px - (points[:, 2] - self.eye_m) / safe * self.focal_px
        return np.stack([column, row, depth], axis=1)


@dataclass(frozen=True)
class Hits:
    """Per column: depth of the wall met (`inf`-like if none), its block, its face, metres along the face."""

    depth: Floats
    block: npt.NDArray[np.int64]
    face: npt.NDArray[np.int64]
    along_m: Floats

    @property
    def met(self) -> npt.NDArray[np.bool_]:
        """Whether the column meets a wall at all."""
        return self.depth < _FAR_M


def cast(camera: Camera, blocks: npt.NDArray[np.float64]) -> tuple[Hits, Hits]:
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
    dx, dy = camera.rays()
    inverse_x = (1.0 / np.where(np.abs(dx) < 1e-6, 1e-6, dx))[:, None]
    inverse_y = (1.0 / np.where(np.abs(dy) < 1e-6, 1e-6, dy))[:, None]
    west, east = box[:, 0] * inverse_x, box[:, 2] * inverse_x
    south, north = box[:, 1] * inverse_y, box[:, 3] * inverse_y
    x_in, y_in = np.minimum(west, east), np.minimum(south, north)
    enter = np.maximum(x_in, y_in)
    leave = np.minimum(np.maximum(west, east), np.maximum(south, north))
    depth = np.where((enter < leave) & (enter > 0.05), enter, np.float32(2 * _FAR_M))
    on_x = x_in > y_in
    columns = np.arange(camera.side_px)
    first = depth.argmin(axis=1)
    one = _hits(camera, blocks, near, first, depth[columns, first], on_x[columns, first])
    depth[columns, first] = 2 * _FAR_M
    second = depth.argmin(axis=1)
    two = _hits(camera, blocks, near, second, depth[columns, second], on_x[columns, second])
    return one, two


def _hits(
    camera: Camera,
    blocks: npt.NDArray[np.float64],
    near: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
    depth: Floats,
    on_x: npt.NDArray[np.bool_],
) -> Hits:
    dx, dy = camera.rays()
    block = near[which]
    x0, y0, x1, y1 = blocks[block].T
    x, y = camera.x_m + dx * depth, camera.y_m + dy * depth
    face = np.where(on_x, np.where(dx > 0, 3, 1), np.where(dy > 0, 0, 2))
    along = np.choose(face, [x - x0, y - y0, x1 - x, y1 - y])
    return Hits(depth, block, face, along.astype(np.float32))
