"""A referee in a process of its own, which a test may kill: `-m referee.lone_referee HOME SCRIPT`.

SCRIPT is that of the scripted trainee, as JSON.
"""

import json
import sys
from pathlib import Path

import pytest
from referee.quick_runs import Track


def main() -> None:
    home, script = sys.argv[1:]
    Track(home=Path(home), monkeypatch=pytest.MonkeyPatch()).perform(*json.loads(script))


if __name__ == "__main__":
    main()
