"""Suites: workloads that are run together, `-w @core` wherever a workload is named."""

from dataclasses import dataclass

from harness import catalogue
from harness.cards import WorkloadCard
from harness.errors import UsageError, one_of

MARK = "@"

# The first two stand on the cards of their members, the others follow from the tier.
_TITLES = {
    "smoke": "Seconds: does everything run?",
    "core": "Minutes: the ranking that every submission should have",
    "embedded": "All that needs no download",
    "real": "Public datasets, downloaded on request",
}
_TIERS = {"embedded": ("embedded", "embedded-slow"), "real": ("real",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A named set of workloads."""

    name: str
    title: str
    workloads: list[WorkloadCard]

    @property
    def reference_seconds(self) -> float:
        """What the reference takes on all of them together, on its calibration machine."""
        return sum(card.reference_seconds for card in self.workloads)


def suites() -> dict[str, Suite]:
    """Return every suite by name, those without members too."""
    cards = [entry.card for entry in catalogue.workloads().values()]
    return {
        name: Suite(
            name=name,
            title=title,
            workloads=[card for card in cards if name in card.suites or card.tier in tiers],
        )
        for name, title in _TITLES.items()
        for tiers in [_TIERS.get(name, ())]
    }


def workloads_named(text: str) -> list[str]:
    """Return the full names behind a workload's name, or behind a suite's after `@`.

    Raises:
        UsageError: no such workload or suite, or one without members.
    """
    if not text.startswith(MARK):
        return [catalogue.workload(text).card.name]
    known = suites()
    name = text.removeprefix(MARK)
    if name not in known:
        raise one_of("The suite", name, known, "See `bench list suites`.")
    if not known[name].workloads:
        raise UsageError(f"The suite {text} has no workloads yet. See `bench list suites`.")
    return [card.name for card in known[name].workloads]
