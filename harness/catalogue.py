"""Finds workload and submission cards: the bundled ones and those of installed packages.

A package offers its own under the entry-point groups `timetrial.workloads` and
`timetrial.submissions`; the entry point names a package whose folder holds the cards.
Nothing here imports a workload's or submission's code.
"""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from harness.cards import C, SubmissionCard, WorkloadCard, read_card
from harness.errors import UsageError, one_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Generic[C]):
    """A card with the file it stands in and the module that implements it."""

    card: C
    path: Path
    module: str

    @property
    def module_path(self) -> Path:
        """The source file of the implementation, beside the card."""
        return self.path.parent / f"{self.module.rpartition('.')[2]}.py"


def _roots(group: str, bundled: str) -> Iterator[tuple[str, Path]]:
    packages = [bundled]
    packages += [point.value for point in importlib.metadata.entry_points(group=group)]
    for package in dict.fromkeys(packages):
        locations = _locations(package)
        if not locations:
            raise UsageError(
                f"The entry point group {group} names {package!r}, which is not an installed "
                f"package. Reinstall or remove the distribution that declares it."
            )
        for location in locations:
            yield package, location


def first_command(workload: str | None = None) -> str:
    """Return a command that measures something, for who has measured nothing yet.

    It runs the reference's optimizer, on the quickest workload that needs no download; one of a
    suite, if there is any.
    """
    cards = [entry.card for entry in workloads().values() if entry.card.tier == "embedded"]
    quickest = min(cards, key=lambda card: (not card.suites, card.reference_seconds), default=None)
    if quickest is None:
        return f"bench run --workload {workload or 'WORKLOAD'} --submission SUBMISSION"
    submission = quickest.recipe.optimizer
    return f"bench run --workload {workload or quickest.name} --submission {submission}"


def module_file(module: str) -> Path | None:
    """Return the source file of an importable module, found without importing its parents."""
    parent, _, name = module.rpartition(".")
    if not parent:
        spec = importlib.util.find_spec(name)
        return Path(spec.origin) if spec and spec.origin and spec.has_location else None
    for folder in _locations(parent):
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file():
                return file
    return None


def _locations(package: str) -> list[Path]:
    """Return the folders of a package. Asking for a subpackage's spec would import its parents."""
    top, *below = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # no module's name
        return []
    if spec is None or not spec.submodule_search_locations:
        return []
    folders = [Path(location, *below) for location in spec.submodule_search_locations]
    return [folder for folder in folders if folder.is_dir()]


def _entries(group: str, bundled: str, kind: type[C]) -> Iterator[Entry[C]]:
    for package, root in _roots(group, bundled):
        for path in sorted(root.rglob("*.yaml")):
            card = read_card(path, kind)
            module = card.implementation.partition(":")[0]
            parents = path.parent.relative_to(root).parts
            yield Entry(card=card, path=path, module=".".join((package, *parents, module)))


def _by_name(entries: Iterator[Entry[C]]) -> dict[str, Entry[C]]:
    found: dict[str, Entry[C]] = {}
    for entry in entries:
        name = entry.card.name
        if name in found:
            raise UsageError(
                f"Two cards are named {name!r}: {found[name].path} and {entry.path}. Rename one."
            )
        found[name] = entry
    return dict(sorted(found.items()))


@functools.cache
def workloads() -> dict[str, Entry[WorkloadCard]]:
    """Return every workload by its full name, `family/data`."""
    return _by_name(_entries("timetrial.workloads", "workloads", WorkloadCard))


@functools.cache
def submissions() -> dict[str, Entry[SubmissionCard]]:
    """Return every submission by its name."""
    return _by_name(_entries("timetrial.submissions", "submissions", SubmissionCard))


def workload(name: str) -> Entry[WorkloadCard]:
    """Return the workload `name`; a bare family means its embedded member.

    Raises:
        UsageError: no such workload, or a family with no single embedded member.
    """
    known = workloads()
    if name in known:
        return known[name]
    family = [entry for entry in known.values() if entry.card.family == name]
    embedded = [
        entry for entry in family if entry.card.tier == "embedded" and entry.card.variant_of is None
    ]
    if len(embedded) == 1:
        return embedded[0]
    if family:
        members = ", ".join(entry.card.name for entry in family)
        raise UsageError(f"The family {name!r} has no single default. Name one of: {members}.")
    families = {entry.card.family for entry in known.values()}
    raise one_of("The workload", name, known.keys() | families, "See `bench list workloads`.")


def submission(name: str) -> Entry[SubmissionCard]:
    """Return the submission `name`.

    Raises:
        UsageError: no such submission.
    """
    known = submissions()
    if name not in known:
        raise one_of(
            "The submission",
            name,
            known,
            "See `bench list submissions`, or give a file: ./my_method.py[:Class].",
        )
    return known[name]
