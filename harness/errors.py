"""The one exception that stands for a user's mistake."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """What was wrong, the legal values and the fix, in words; the command line exits 2 with it."""


def one_of(what: str, given: str, legal: Iterable[str], fix: str = "") -> UsageError:
    """Return the error for a name that is none of `legal`, nearest names first."""
    names = sorted(legal)
    nearest = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    message = f"{what} {given!r} does not exist."
    if nearest:
        message += f" Did you mean {' or '.join(repr(name) for name in nearest)}?"
    message += f" Available: {', '.join(names) if names else 'none'}."
    return UsageError(f"{message} {fix}".rstrip())
