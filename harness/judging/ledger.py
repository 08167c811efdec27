"""The ledger: for each claim and machine class, what was measured last; a file of JSON."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.errors import UsageError
from harness.judging.claims import Verdict

FORMAT = 1


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the pairs: the submission, or the baseline."""

    submission: str
    source_sha256: str
    hyperparameters: dict[str, bool | int | float | str]
    trials: int  # points tried to find these; 1: nothing was tuned


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What was claimed and what was measured. Ratios are the submission's over the baseline's."""

    submission: str
    metric: str
    baseline: str
    workload: str
    workload_version: int
    claimed: float
    statement: str
    source: str
    machine_class: str
    measured_on: str  # date, UTC
    git_commit: str | None
    own: Side
    other: Side
    verdict: Verdict
    reason: str
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    untelling: int
    missed: int
    baseline_missed: int
    left_out: int  # pairs with a tainted or failed run
    run_ids: tuple[str, ...]  # of the pairs that count

    @property
    def key(self) -> tuple[str, str, str]:
        """What another measurement replaces."""
        return self.submission, self.workload, self.machine_class


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    claims: tuple[Entry, ...]


def ledger_path(home: Path) -> Path:
    """Return where a home's ledger lies."""
    return home / "claims.json"


def read_ledger(path: Path) -> list[Entry]:
    """Return the entries; none where there is no file.

    Raises:
        UsageError: the file cannot be read, or is no ledger.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"The ledger {path} cannot be read: {error}.") from None
    try:
        document = msgspec.json.decode(content, type=_Document)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path} is no ledger of claims: {error}. Move it away; `bench claims run` goes on "
            "with the runs that were made and writes it anew."
        ) from None
    if document.format != FORMAT:
        raise UsageError(
            f"The ledger {path} has format {document.format}; this version reads {FORMAT}."
        )
    return list(document.claims)


def write_entry(path: Path, entry: Entry) -> None:
    """Put an entry into the ledger, in place of an earlier one of the same claim.

    Raises:
        UsageError: the file cannot be read or written; it stays as it was.
    """
    others = [one for one in read_ledger(path) if one.key != entry.key]
    _write(path, sorted([*others, entry], key=lambda one: one.key))


def _write(path: Path, entries: Sequence[Entry]) -> None:
    document = _Document(format=FORMAT, claims=tuple(entries))
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(text + b"\n")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UsageError(f"The ledger {path} cannot be written: {error}.") from None
