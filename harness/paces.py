"""Stored paces: the seconds of a reference step, per machine × card version.

A pace is measured once (harness.reference_step) and kept, so that a budget in paces means
the same seconds in every run on this machine. However many processes train, it is one process's,
on all the cores that train (of several GPUs on the first): a run in several is to show in its
normalised time what they gain.
"""

import hashlib
import os
import re
import socket
import time
from pathlib import Path
from typing import Annotated

import msgspec

from harness.cards import WorkloadCard
from harness.errors import UsageError

_Nanoseconds = Annotated[int, msgspec.Meta(ge=1)]  # budgets divide by a pace


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """A measured pace and how it was measured."""

    workload: str
    workload_version: int
    machine_class: str
    host: str
    pace_ns: _Nanoseconds
    steps: int  # timed, after warm-up
    quartile_low_ns: int
    quartile_high_ns: int
    measured_unix_ns: int


def pace_path(folder: Path, card: WorkloadCard, machine_class: str) -> Path:
    """Return the file of the pace of `card` on this host."""
    name = f"{card.name}-v{card.version}-{socket.gethostname()}-{machine_class}"
    readable = re.sub(r"[^A-Za-z0-9.+]+", "-", name)
    # File systems take 255 bytes; the hash tells apart what the readable part no longer does.
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return folder / f"{readable[:200]}-{digest}.json"


def load_pace(path: Path) -> Pace | None:
    """Return the stored pace, None if there is none.

    Raises:
        UsageError: the file is damaged or unreadable.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pace)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"The stored pace {path} is damaged ({error}). Delete it.") from None
    except OSError as error:
        raise UsageError(f"The stored pace cannot be read: {error}.") from None


def store_pace(path: Path, card: WorkloadCard, machine_class: str, sample_ns: list[int]) -> Pace:
    """Store the median of the timed steps in `sample_ns` (at least one); return the pace."""
    ordered = sorted(sample_ns)
    pace = Pace(
        workload=card.name,
        workload_version=card.version,
        machine_class=machine_class,
        host=socket.gethostname(),
        pace_ns=median_ns(ordered),
        steps=len(ordered),
        quartile_low_ns=ordered[len(ordered) // 4],
        quartile_high_ns=ordered[(3 * len(ordered)) // 4],
        measured_unix_ns=time.time_ns(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{os.getpid()}-{time.time_ns()}.tmp")
    try:
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(pace), indent=2) + b"\n")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return pace


def median_ns(sample_ns: list[int]) -> int:
    """Return the (lower) median; at least 1, since budgets divide by it."""
    return max(1, sorted(sample_ns)[(len(sample_ns) - 1) // 2])
