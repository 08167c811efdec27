"""The Pareto front of time, memory and energy: rows that no other beats on all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

_AXES = {"time": "time_s", "memory": "memory_bytes", "energy": "energy_j"}


def mark_front(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each row of a group whether it is on the front, and over which axes that is.

    A row without a median time is on no front. Energy, or memory, counts where every row with a
    time has it: a figure that was not measured must not make a row look better or worse.
    """
    timed = [position for position, row in enumerate(rows) if row["time_s"] is not None]
    axes = [
        axis
        for axis, field in _AXES.items()
        if all(rows[position][field] is not None for position in timed)
    ]
    points = [tuple(rows[position][_AXES[axis]] for axis in axes) for position in timed]
    on_front = dict(zip(timed, front(points), strict=True))
    return [
        {"pareto_front": on_front.get(position, False), "pareto_axes": " × ".join(axes)}
        for position in range(len(rows))
    ]


def front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Return which points no other is at most equal to everywhere and less than somewhere."""
    import numpy as np

    if not points:
        return []
    figures = np.array(points, dtype=float)
    # In this order a point is only ever dominated by an earlier one, and by one on the front.
    order = np.lexsort(figures.T[::-1])
    kept = np.empty((0, figures.shape[1]))
    found = [False] * len(points)
    for position in order:
        point = figures[position]
        dominated = np.any(np.all(kept <= point, axis=1) & np.any(kept < point, axis=1))
        if not dominated:
            found[position] = True
            kept = np.vstack([kept, point])
    return found
