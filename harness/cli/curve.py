"""A curve, drawn in braille dots for a terminal."""

import itertools
import math
from collections.abc import Sequence

WIDTH = 64  # characters; with the axis it fits 80 columns
HEIGHT = 10
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column in a cell
_BLANK = 0x2800


def curve(
    points: Sequence[tuple[float, float]], target: float, width: int = WIDTH, height: int = HEIGHT
) -> list[str]:
    """Return the lines of a plot of `points` (time in s ≥ 0, finite value) and the target.

    The time axis starts at 0. The target is a dashed line. Without points there are no lines.
    """
    if not points:
        return []
    right = max(time for time, _ in points) or 1.0
    return plot(points, target, (0.0, right), ("0", f"{right:.3g} s"), width, height)


def plot(
    points: Sequence[tuple[float, float]],
    level: float,
    span: tuple[float, float],
    ends: tuple[str, str],
    width: int = WIDTH,
    height: int = HEIGHT,
) -> list[str]:
    """Return the lines of a plot of `points` over a `span`, and a dashed line at a level.

    Values are finite, the span is not empty, and `ends` are the words below its ends.
    """
    left, right = span
    values = [value for _, value in points]
    low, high = min(*values, level), max(*values, level)
    margin = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - margin, high + margin
    canvas = [[_BLANK] * width for _ in range(height)]

    def at(place: float, value: float) -> tuple[int, int]:
        column = round((place - left) / (right - left) * (2 * width - 1))
        row = round((high - value) / (high - low) * (4 * height - 1))
        return column, row

    def dot(column: int, row: int) -> None:
        canvas[row // 4][column // 2] |= _DOTS[row % 4][column % 2]

    level_row = at(left, level)[1]
    for column in range(0, 2 * width, 4):
        dot(column, level_row)
    dots = [at(place, value) for place, value in sorted(points)]
    dot(*dots[0])
    for start, end in itertools.pairwise(dots):
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for step in range(length + 1):
            dot(
                round(start[0] + (end[0] - start[0]) * step / length),
                round(start[1] + (end[1] - start[1]) * step / length),
            )
    labels = {0: high, height - 1: low, level_row // 4: level}
    digits = max(3, 1 - math.floor(math.log10(high - low)) + 1)
    texts = {row: f"{value:.{min(digits, 6)}f}" for row, value in labels.items()}
    gutter = max(len(text) for text in texts.values())
    lines = [
        f"{texts.get(row, ''):>{gutter}} ┤{''.join(map(chr, cells))}".rstrip(chr(_BLANK))
        for row, cells in enumerate(canvas)
    ]
    lines.append(f"{'':>{gutter}} └{'─' * width}")
    lines.append(f"{'':>{gutter}}  {ends[0]}{ends[1]:>{width - len(ends[0])}}")
    return lines
