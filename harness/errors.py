"""The one exception that stands for a user's mistake."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """What was wrong, the legal values and the fix, in words; the command line exits 2 with it."""


def did_you_mean(given: str, legal: Iterable[str]) -> str:
    """Return `Did you mean 'x'? ` for the nearest names, '' where none is near."""
    nearest = difflib.get_close_matches(given, sorted(legal), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""


def one_of(what: str, given: str, legal: Iterable[str], fix: str = "") -> UsageError:
    """Return the error for a name that is none of `legal`, nearest names first."""
    names = sorted(legal)
    return UsageError(
        f"{what} {given!r} does not exist. {did_you_mean(given, names)}"
        f"Available: {', '.join(names) or 'none'}. {fix}".rstrip()
    )
