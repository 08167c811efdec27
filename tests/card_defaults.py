"""A card's defaults beside its constructors': one must not drift from the other."""

from collections.abc import Mapping

from harness.cards import FROM_RECIPE, Scalar, SubmissionCard


def card_defaults(card: SubmissionCard, constructor: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the card's defaults; one that the recipe gives reads as the constructor's."""
    return {
        name: constructor[name] if known.default == FROM_RECIPE else known.convert(known.default)
        for name, known in card.hyperparameters.items()
    }
