"""AlgoPerf's log trees: SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_J/eval_measurements.csv.

Folders above the submission's are the ruleset that the submissions were run under. Files with
one header are parsed together: some thousand small files one by one take ten times as long.
"""

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import polars

FILE = "eval_measurements.csv"
LAYOUT = f"SUBMISSION/study_K/WORKLOAD_jax|pytorch/trial_J/{FILE}"

# What names a trial, in the order in which they are sorted.
KEYS = ("ruleset", "submission", "workload", "framework", "study", "trial")

TIME = "score"  # AlgoPerf's name for the seconds of submission time at an evaluation

_PATH = re.compile(
    r"(?:(?P<ruleset>.+)/)?(?P<submission>[^/]+)/study_(?P<study>\d+)/"
    r"(?P<workload>[^/]+)_(?P<framework>jax|pytorch)/trial_(?P<trial>\d+)/" + re.escape(FILE)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Logs:
    """What a log tree holds.

    `trials` has a row for each trial, with the columns `KEYS`, `path` and the number of
    `evaluations`. `evaluations` has a row for each, with `KEYS`, its `evaluation` counted from 0
    and the columns of the files, as they are named there; NULL: another workload's.
    """

    trials: "polars.DataFrame"
    evaluations: "polars.DataFrame"
    skipped: dict[str, str]  # path: why


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    path: str  # below the tree
    keys: tuple[str, str, str, str, int, int]
    header: bytes
    body: bytes  # each line ends


def read_logs(source: Path) -> Logs:
    """Return the logs in a folder, or in a .tar, .tar.gz or .tar.xz of one.

    Raises:
        UsageError: nothing is there, or nothing of AlgoPerf's layout.
    """
    files, skipped = _sorted_out(_contents(source))
    if not files:
        raise _nothing(source, skipped)
    by_header: dict[bytes, list[_File]] = {}
    for file in files:
        by_header.setdefault(file.header, []).append(file)
    frames: list[polars.DataFrame] = []
    trials: list[tuple[_File, int]] = []
    for alike in by_header.values():
        read, counts, damaged = _parsed(alike)
        trials += counts
        frames.append(read)
        skipped |= damaged
    if not trials:
        raise _nothing(source, skipped)
    return _joined(trials, frames, skipped)


def _contents(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file of evaluations."""
    if source.is_dir():
        for folder, _, names in os.walk(source):  # rglob takes three times as long
            if FILE in names:
                path = Path(folder, FILE)
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    if not source.exists():
        raise UsageError(f"{source} does not exist. Name a folder with AlgoPerf's logs: {LAYOUT}.")
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.rpartition("/")[2] == FILE:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name.removeprefix("./"), content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(
            f"{source} cannot be read as an archive: {error}. Name a folder with AlgoPerf's logs, "
            f"or a .tar, .tar.gz or .tar.xz of one."
        ) from None


def _sorted_out(contents: Iterator[tuple[str, bytes]]) -> tuple[list[_File], dict[str, str]]:
    files: list[_File] = []
    skipped: dict[str, str] = {}
    for path, content in contents:
        match = _PATH.fullmatch(path)
        header, _, body = content.partition(b"\n")
        header = header.rstrip(b"\r")
        if match is None:
            skipped[path] = f"outside the layout {LAYOUT}"
        elif TIME.encode() not in header.split(b","):
            skipped[path] = f"no column `{TIME}`" if content.strip() else "empty"
        else:
            keys = (
                match["ruleset"] or "",
                match["submission"],
                match["workload"],
                match["framework"],
                int(match["study"]),
                int(match["trial"]),
            )
            body = body if body.endswith(b"\n") or not body else body + b"\n"
            files.append(_File(path=path, keys=keys, header=header, body=body))
    return sorted(files, key=lambda file: file.keys), skipped


def _parsed(
    files: Sequence[_File],
) -> "tuple[polars.DataFrame, list[tuple[_File, int]], dict[str, str]]":
    """Return the evaluations in files of one header, how many each file has, what is damaged."""
    import polars

    try:
        frame = _frame(files)
        counts = [(file, file.body.count(b"\n")) for file in files]
        if frame.height == sum(count for _, count in counts):
            return frame.with_columns(_key_columns(counts)), counts, {}
        problem = "lines that are no evaluations"
    except polars.exceptions.PolarsError as error:
        problem = " ".join(str(error).split())[:200]
    if len(files) == 1:
        return polars.DataFrame(), [], {files[0].path: f"damaged: {problem}"}
    # One of them is damaged: which, halving finds sooner than one by one.
    half = len(files) // 2
    first, second = _parsed(files[:half]), _parsed(files[half:])
    joined = polars.concat([first[0], second[0]], how="diagonal")
    return joined, first[1] + second[1], first[2] | second[2]


def _frame(files: Sequence[_File]) -> "polars.DataFrame":
    import polars

    header = files[0].header
    return polars.read_csv(
        header + b"\n" + b"".join(file.body for file in files),
        schema=dict.fromkeys(header.decode().split(","), polars.Float64),
    )


def _key_columns(counts: Sequence[tuple[_File, int]]) -> "list[polars.Series]":
    import numpy as np
    import polars

    lengths = [count for _, count in counts]
    columns = [
        polars.Series(name, [file.keys[position] for file, _ in counts]).gather(
            np.repeat(np.arange(len(counts)), lengths)
        )
        for position, name in enumerate(KEYS)
    ]
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    columns.append(polars.Series("evaluation", np.arange(sum(lengths)) - starts))
    return columns


def _joined(
    trials: Sequence[tuple[_File, int]],
    frames: "Sequence[polars.DataFrame]",
    skipped: dict[str, str],
) -> Logs:
    import polars

    rows = [
        dict(zip(KEYS, file.keys, strict=True)) | {"path": file.path, "evaluations": count}
        for file, count in trials
    ]
    evaluations = polars.concat(frames, how="diagonal")
    first = [*KEYS, "evaluation"]
    return Logs(
        trials=polars.DataFrame(rows).sort(KEYS),
        evaluations=evaluations.select(*first, polars.exclude(first)),
        skipped=dict(sorted(skipped.items())),
    )


def _nothing(source: Path, skipped: dict[str, str]) -> UsageError:
    found = "no such file"
    if skipped:
        path, why = next(iter(skipped.items()))
        found = f"of {len(skipped)} such files none; {path}: {why}"
    return UsageError(
        f"{source} holds no logs in AlgoPerf's layout, {LAYOUT}, folders above it allowed "
        f"({found})."
    )
