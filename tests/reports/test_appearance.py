from hypothesis import given
from hypothesis import strategies as st

from harness.reports.appearance import DARK, DASHES, LIGHT, MARKERS, dash, looks

NAMES = st.lists(st.text(max_size=8), max_size=len(LIGHT) * len(MARKERS), unique=True)


@given(NAMES)
def test_no_two_submissions_look_alike(names: list[str]) -> None:
    found = looks(names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(names)


@given(st.lists(st.text(max_size=8), max_size=len(LIGHT), unique=True))
def test_no_colour_comes_twice_while_one_is_free(names: list[str]) -> None:
    assert len({look.colour for look in looks(names).values()}) == len(names)


@given(NAMES)
def test_looks_do_not_depend_on_the_order(names: list[str]) -> None:
    assert looks(names) == looks(reversed(names))


def test_more_submissions_than_looks_still_have_one_each() -> None:
    names = [f"method-{number}" for number in range(200)]
    assert len(looks(names)) == 200


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_the_paper() -> None:
    """WCAG 2.2, 1.4.11: graphics need a contrast of 3 to 1."""
    assert min(contrast(colour, "#ffffff") for colour in LIGHT) >= 3
    assert min(contrast(colour, "#14161a") for colour in DARK) >= 3
    assert len(LIGHT) == len(DARK)


def test_efforts_beyond_the_dashes_share_the_last() -> None:
    efforts = [f"{number} trials" for number in range(6)]
    assert [dash(effort, efforts) for effort in efforts] == [0, 1, 2, 3, 3, 3]
    assert len(DASHES) == 4
