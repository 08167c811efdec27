"""The front against its definition, and which axes it is over."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judging.pareto import front, mark_front


def dominated(point: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    return any(
        all(o <= p for o, p in zip(other, point, strict=True)) and other != point
        for other in others
    )


@given(st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    assert front(points) == [not dominated(point, points) for point in points]


def row(time_s: float | None, memory: float | None, energy: float | None) -> dict[str, Any]:
    return {"time_s": time_s, "memory_bytes": memory, "energy_j": energy}


@pytest.mark.parametrize(
    ("rows", "axes", "marks"),
    [
        ([row(1, 9, 5), row(2, 8, 5), row(3, 9, 6)], "time × memory × energy", [1, 1, 0]),
        # Energy alone would save the last; not all have it.
        ([row(1, 8, None), row(2, 7, 9), row(3, 9, 1)], "time × memory", [1, 1, 0]),
        ([row(1, None, None), row(2, 7, None)], "time", [1, 0]),
        # Without a median time a row is on no front, and takes no axis away.
        ([row(None, 1, None), row(2, 7, 9)], "time × memory × energy", [0, 1]),
        ([row(None, 1, None)], "time × memory × energy", [0]),
    ],
)
def test_fronts_worked_by_hand(rows: list[dict[str, Any]], axes: str, marks: list[int]) -> None:
    found = mark_front(rows)
    assert [one["pareto_front"] for one in found] == [bool(mark) for mark in marks]
    assert {one["pareto_axes"] for one in found} == {axes}
