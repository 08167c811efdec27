"""Which colour, marker and dash stands for what, on the page and in figures alike.

A submission has one look, from its name alone where nothing else claims it, and looks are given
out among all that was measured: choosing, filtering or toggling never recolours. The colours are
Okabe & Ito's ("Color Universal Design", 2008) for the colour-blind, those too pale for white
paper darkened and those too dark for a dark page lightened; yellow, which is legible on neither,
is left out. With more submissions than colours, markers tell those of one colour apart.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LIGHT = ("#0072b2", "#d55e00", "#008a63", "#b8629a", "#b67a00", "#3594d0", "#5b5b5b")
DARK = ("#4a9fe0", "#f0813a", "#22b98c", "#dd92bd", "#e6a72c", "#8fd0f5", "#b5b5b5")
# Plotly's names and Matplotlib's for the same markers and dashes.
MARKERS = (
    ("circle", "o"),
    ("square", "s"),
    ("diamond", "D"),
    ("triangle-up", "^"),
    ("cross", "P"),
    ("triangle-down", "v"),
    ("x", "X"),
    ("star", "*"),
)
DASHES = (
    ("solid", "-"),
    ("dash", "--"),
    ("dashdot", "-."),
    ("dot", ":"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a submission is drawn: positions in the tables above."""

    colour: int
    marker: int


def looks(submissions: Iterable[str]) -> dict[str, Look]:
    """Return a look for each submission, all different as long as there are enough.

    A name's own place follows from its hash, so that it mostly looks the same in another report;
    of two with one place the later in the alphabet takes the next one that is free.
    """
    names = sorted(set(submissions))
    # As many rounds of the colours as are needed, the plain markers first.
    places = len(LIGHT) * min(len(MARKERS), -(-len(names) // len(LIGHT)))
    taken: set[int] = set()
    found: dict[str, Look] = {}
    for name in names:
        place = _own_place(name, places)
        if len(taken) < places:
            while place in taken:
                place = (place + 1) % places
            taken.add(place)
        found[name] = Look(colour=place % len(LIGHT), marker=place // len(LIGHT))
    return found


def _own_place(name: str, places: int) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % places


def dash(effort: str, efforts: Sequence[str]) -> int:
    """Return the dash of a tuning effort among those of a figure."""
    return min(efforts.index(effort), len(DASHES) - 1)
