from __future__ import annotations

import numpy as np
import pytest

from stages.toycity.camera import Camera
from stages.toycity.streets import plan_city
from stages.toycity.walls import cast_rays


def test_a_ray_meets_the_wall_across_the_street():
    city = plan_city(300, 2)
    segment = city.segments[0]
    middle = (segment.start_m + segment.stop_m) / 2
    camera = Camera(middle, segment.across_m, 1.7, 0.0, 60.0, 101)
    front, behind = cast_rays(camera, city.blocks)
    assert front.depth[50] == pytest.approx(segment.width_m / 2, abs=0.01)
    assert front.face[50] == 0
    block = city.blocks[front.block[50]]
    assert front.along_m[50] == pytest.approx(middle - block[0], abs=0.01)
    assert behind.depth[50] > front.depth[50] + 30


def test_a_point_projects_onto_the_column_that_sees_it():
    camera = Camera(10.0, 20.0, 1.7, 30.0, 70.0, 200)
    dx, dy = camera.rays
    point = np.array([[10.0 + 9.0 * dx[137], 20.0 + 9.0 * dy[137], 1.7]])
    column, row, depth = camera.project(point)[0]
    assert (column, row, depth) == pytest.approx((137.5, camera.horizon_px, 9.0), abs=1e-3)
