"""Cells, centres and groups: exact on borders, west of the origin and at the size of UTM coordinates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.partition import grid

metres = st.floats(-2e7, 2e7, allow_nan=False)
sides = st.one_of(st.sampled_from([0.1, 0.3, 1.0, 7.3, 10.0, 15.0, 20.0, 1000.0]), st.floats(0.1, 1e4))
numbers = st.integers(-(10**6), 10**6)


def cell_of(east, north, cell_m):
    return grid.cells(np.array([[east, north]]), cell_m)[0]


@given(metres, metres, sides)
def test_a_point_lies_in_its_cell(east, north, cell_m):
    for value, number in zip((east, north), cell_of(east, north, cell_m).tolist(), strict=True):
        assert number * cell_m <= value < (number + 1) * cell_m


@given(numbers, sides)
def test_a_border_belongs_to_the_cell_that_begins_there(number, cell_m):
    border = number * cell_m
    assert cell_of(border, border, cell_m).tolist() == [number, number]


@given(numbers, st.sampled_from([1.0, 10.0, 20.0]))
def test_the_last_float_below_a_border_is_in_the_cell_before(number, cell_m):
    below = np.nextafter(number * cell_m, -np.inf)
    assert cell_of(below, below, cell_m).tolist() == [number - 1, number - 1]


@given(numbers, numbers, sides)
def test_a_centre_lies_in_the_cell_it_is_the_centre_of(p, q, cell_m):
    cells = np.array([[p, q]])
    assert grid.cells(grid.centres(cells, cell_m), cell_m).tolist() == [[p, q]]


@given(st.tuples(numbers, numbers), st.tuples(st.integers(-8, 8), st.integers(-8, 8)), st.integers(2, 8))
def test_two_cells_of_one_group_never_touch(cell, step, groups_per_side):
    other = (cell[0] + step[0], cell[1] + step[1])
    first, second = grid.group_of(np.array([cell, other]), groups_per_side)
    if first == second and cell != other:
        assert max(abs(step[0]), abs(step[1])) >= groups_per_side


@given(numbers, numbers, st.integers(1, 9))
def test_a_group_number_is_u_times_n_plus_v(p, q, groups_per_side):
    group = int(grid.group_of(np.array([[p, q]]), groups_per_side)[0])
    assert 0 <= group < groups_per_side**2
    assert divmod(group, groups_per_side) == (p % groups_per_side, q % groups_per_side)


def test_equations_on_a_worked_example():
    cells = grid.cells(np.array([[543_256.96, 4_178_906.70], [-0.5, 0.0]]), 10.0)
    assert cells.tolist() == [[54_325, 417_890], [-1, 0]]
    assert grid.centres(cells, 10.0).tolist() == [[543_255.0, 4_178_905.0], [-5.0, 5.0]]
    assert grid.group_of(cells, 2).tolist() == [2, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_infinite_position_is_rejected_with_its_row(bad):
    with pytest.raises(InputError, match="row 1"):
        grid.cells(np.array([[0.0, 0.0], [1.0, bad]]), 10.0)
