"""Suites: workloads that are run together, `-w @core` wherever a workload is named.

`held-out` holds variants of the core workloads: the same task with a model changed in part, on
which nobody tunes. `@held-out:SEED` draws one a workload, so that a seed announced after the
submissions are frozen asks them something that they have not seen (AlgoPerf's rule).
"""

import hashlib
from dataclasses import dataclass

from harness import catalogue
from harness.cards import WorkloadCard
from harness.errors import UsageError, one_of

MARK = "@"
HELD_OUT = "held-out"

# The first two stand on the cards of their members, the others follow from the tier.
_TITLES = {
    "smoke": "Seconds: does everything run?",
    "core": "Minutes: the ranking that every submission should have",
    "embedded": "All that needs no download",
    "real": "Public datasets, downloaded on request",
    HELD_OUT: "Variants of core's, not for tuning; @held-out:SEED draws one of each",
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
            workloads=[card for card in cards if _belongs(card, name, tiers)],
        )
        for name, title in _TITLES.items()
        for tiers in [_TIERS.get(name, ())]
    }


def _belongs(card: WorkloadCard, name: str, tiers: tuple[str, ...]) -> bool:
    if card.variant_of is not None:
        return name == HELD_OUT
    return name in card.suites or card.tier in tiers


def held_out_draw(seed: str) -> list[WorkloadCard]:
    """Return one variant of each workload that has some, drawn by `seed` (any text).

    A workload's draw depends on the seed and its own variants only, so that it stays the same
    when other workloads join.
    """
    variants: dict[str, list[WorkloadCard]] = {}
    for card in suites()[HELD_OUT].workloads:
        variants.setdefault(str(card.variant_of), []).append(card)
    return [
        sorted(cards, key=lambda card: _rank(seed, card.name))[0] for cards in variants.values()
    ]


def _rank(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def may_be_several(text: str) -> bool:
    """Return whether a user asks for several workloads; a suite may have one member."""
    return text.startswith(MARK) or "," in text


def workloads_named(text: str) -> list[str]:
    """Return the full names behind a workload's name, a suite's after `@`, or `@held-out:SEED`.

    Several stand with commas between them; each comes once.

    Raises:
        UsageError: no such workload or suite, one without members, or no name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("No workload is named. See `bench list workloads`.")
    return list(dict.fromkeys(full for name in names for full in _members(name)))


def _members(text: str) -> list[str]:
    if not text.startswith(MARK):
        return [catalogue.workload(text).card.name]
    known = suites()
    name, colon, seed = text.removeprefix(MARK).partition(":")
    if colon and name != HELD_OUT:
        raise UsageError(f"Only @{HELD_OUT} is drawn by a seed, as in @{HELD_OUT}:7, not {text}.")
    if colon and not seed:
        raise UsageError(f"{text} lacks its seed, as in @{HELD_OUT}:7.")
    if name not in known:
        raise one_of("The suite", name, known, "See `bench list suites`.")
    if not known[name].workloads:
        raise UsageError(f"The suite {text} has no workloads yet. See `bench list suites`.")
    chosen = held_out_draw(seed) if colon else known[name].workloads
    return [card.name for card in chosen]
