"""Turns `--submission lion --set lr=1e-3` into a recipe: the reference with parts replaced."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from harness import catalogue
from harness.candidates import Candidate, candidate_named, split_names
from harness.cards import (
    FROM_RECIPE,
    MAX_INTEGER,
    Place,
    Scalar,
    WorkloadCard,
    within,
)
from harness.errors import UsageError, one_of
from harness.spec import Part, Recipe

REFERENCE_EFFORT = "reference"
DEFAULTS_EFFORT = "defaults"
BY_HAND_EFFORT = "by hand"  # points given with --set: nobody knows what they cost


_SCHEDULED = ("warmup_fraction", "final_lr_fraction")  # what the reference's schedule takes

# The reference recipe's own settings, `--set recipe.NAME=VALUE`: type and legal range.
_LEGAL_SETTINGS: dict[str, tuple[type[int | float], float, float]] = {
    "batch_size": (int, 1, 1e9),
    "horizon_examples": (int, 1, 1e15),
    "warmup_fraction": (float, 0, 1),
    "final_lr_fraction": (float, 0, 1),
    "clip_norm": (float, 1e-12, 1e12),
    "label_smoothing": (float, 0, 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A recipe with what the record says about it."""

    name: str
    recipe: Recipe
    hyperparameters: dict[str, Scalar]
    tuning_effort: str
    files: dict[str, Path]  # the submission's source and card, by the name they are kept under
    source_sha256: str
    warnings: list[str] = field(default_factory=list)


def resolve(
    submission: str, workload: WorkloadCard, settings: Sequence[str], *, tuned: bool = True
) -> Resolved:
    """Resolve names and `key=value` settings against the cards.

    With `tuned` off, no point that was tuned on this workload is used: one setting for all.

    Raises:
        UsageError: an unknown name or key, a value out of range, two parts for one place.
    """
    candidates = [candidate_named(name) for name in split_names(submission)]
    by_place: dict[Place, Candidate] = {}
    for candidate in candidates:
        for place in candidate.fillings:
            if place in by_place:
                raise UsageError(
                    f"{by_place[place].name!r} and {candidate.name!r} both fill the place "
                    f"`{place}`. Name one of them."
                )
            by_place[place] = candidate
    if "procedure" in by_place and "averaging" in by_place:
        raise UsageError(
            f"{by_place['procedure'].name!r} owns the loop, so {by_place['averaging'].name!r} has "
            "no steps to average over. Name one of them."
        )
    named = list(candidates)
    _check_addresses(candidates)
    for candidate in candidates:
        for place in candidate.card.ignores if candidate.card else ():
            if place in by_place:
                raise UsageError(
                    f"{candidate.name!r} owns the loop and has no use for the place `{place}`, "
                    f"which {by_place[place].name!r} fills. Leave that out."
                )
    if "optimizer" not in by_place:
        candidates.append(candidate_named(workload.recipe.optimizer))

    by_hand = _split_settings(settings)
    own = _own_settings(by_hand, candidates)
    chosen = _recipe_settings(by_hand.get("recipe", {}))
    _check_effect(chosen, by_place)
    scheduled = {name: chosen[name] for name in _SCHEDULED if name in chosen}
    own_recipe = msgspec.structs.replace(workload.recipe, **scheduled)
    warnings = [candidate.warning for candidate in candidates if candidate.warning]
    parts: list[Part] = []
    points: dict[str, dict[str, Scalar]] = {}
    efforts: list[str] = []
    for candidate, hand in zip(candidates, own, strict=True):
        point, effort = _point(
            candidate, msgspec.structs.replace(workload, recipe=own_recipe), warnings, tuned
        )
        point |= _read_point(candidate, hand)
        points[candidate.name] = point
        parts += _parts(candidate, point)
        efforts.append(BY_HAND_EFFORT if hand else effort)
    reference = workload.recipe
    recipe = Recipe(
        parts=parts,
        batch_size=int(chosen.get("batch_size", workload.batch_size)),
        horizon_examples=int(chosen.get("horizon_examples", workload.horizon_examples)),
        warmup_fraction=chosen.get("warmup_fraction", reference.warmup_fraction),
        final_lr_fraction=chosen.get("final_lr_fraction", reference.final_lr_fraction),
        decay_exempt_roles=reference.decay_exempt_roles,
        clip_norm=chosen.get("clip_norm", reference.clip_norm),
        label_smoothing=chosen.get("label_smoothing", reference.label_smoothing),
    )
    if recipe.batch_size > workload.data.training_examples:
        raise UsageError(
            f"recipe.batch_size={recipe.batch_size} is more than the "
            f"{workload.data.training_examples} training examples of {workload.name}."
        )
    touched: dict[str, Scalar] = {f"recipe.{name}": value for name, value in chosen.items()}
    files = _files(candidates)
    return Resolved(
        name="+".join(candidate.name for candidate in named),
        recipe=recipe,
        hyperparameters=_flat(points) | touched,
        tuning_effort=BY_HAND_EFFORT if touched else _joint_effort(efforts),
        files=files,
        source_sha256=_digest(files),
        warnings=warnings,
    )


def _check_effect(chosen: Mapping[str, float], by_place: Mapping[Place, Candidate]) -> None:
    """Refuse a setting of the reference recipe that another part has put out of force."""
    for name in chosen:
        place: Place | None = (
            "schedule" if name in _SCHEDULED else "objective" if name == "label_smoothing" else None
        )
        if place is None or place not in by_place:
            continue
        part = by_place[place]
        known = part.card.hyperparameters if part.card else {}
        if name not in known or known[name].default != FROM_RECIPE:
            raise UsageError(
                f"recipe.{name} has no effect: {part.name!r} fills the place `{place}`. "
                f"Leave it out, or set what {part.name} takes: "
                f"{', '.join(sorted(known)) or 'nothing'}."
            )


def _check_addresses(candidates: Sequence[Candidate]) -> None:
    """Refuse a name that in `--set NAME.KEY=…` could mean another part, too."""
    for number, candidate in enumerate(candidates):
        others = [*candidates[:number], *candidates[number + 1 :]]
        if any(candidate.name in (other.name, *other.fillings) for other in others):
            raise UsageError(
                f"The name {candidate.name!r} also stands for another part, so --set could not "
                "say which is meant. Rename the file."
            )


def _parts(candidate: Candidate, point: Mapping[str, Scalar]) -> list[Part]:
    """Return one part a place, each with the hyperparameters that are its own."""
    own_place = next(iter(candidate.fillings))
    known = candidate.card.hyperparameters if candidate.card else {}
    owners = {name: known[name].place or own_place for name in point if name in known}
    return [
        Part(
            name=candidate.name,
            place=place,
            class_name=filling.class_name,
            hyperparameters={
                name: value for name, value in point.items() if owners.get(name, own_place) == place
            },
            needs=filling.needs,
            closure=candidate.card.closure if candidate.card and place == "optimizer" else "none",
            module=filling.module,
            file=None if filling.module else str(filling.file),
        )
        for place, filling in candidate.fillings.items()
    ]


def _flat(points: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """Name hyperparameters plainly for one submission, `name.key` for several."""
    if len(points) == 1:
        return dict(next(iter(points.values())))
    return {
        f"{name}.{key}": value for name, point in points.items() for key, value in point.items()
    }


def _joint_effort(efforts: Sequence[str]) -> str:
    """Return the effort of several parts, in whatever order they were named."""
    if BY_HAND_EFFORT in efforts:
        return BY_HAND_EFFORT
    return " + ".join(sorted(set(efforts) - {REFERENCE_EFFORT})) or REFERENCE_EFFORT


def _split_settings(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Group `[part.]key=value` by part; a key without a part stands under ''."""
    grouped: dict[str, dict[str, str]] = {}
    for setting in settings:
        address, equals, value = setting.partition("=")
        part, dot, name = address.strip().rpartition(".")
        legal = equals and name and value.strip() and bool(part) == bool(dot)
        if not legal or _half_a_character(setting):
            raise UsageError(f"--set takes KEY=VALUE, not {setting!r}. Example: --set lr=1e-3")
        if name in grouped.setdefault(part, {}):
            raise UsageError(f"--set gives {address.strip()!r} twice. Give it once.")
        grouped[part][name] = value.strip()
    return grouped


def _half_a_character(text: str) -> bool:
    """Return whether `text` came from bytes that are no UTF-8; the record could not hold it."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _own_settings(
    by_hand: Mapping[str, dict[str, str]], candidates: Sequence[Candidate]
) -> list[dict[str, str]]:
    """Hand each part the settings addressed to it by name, by place, or plainly.

    A plain key is the one part's that has it.
    """
    plain = [_having(key, candidates) for key in by_hand.get("", {})]
    addresses = {"recipe"}
    own: list[dict[str, str]] = []
    for number, candidate in enumerate(candidates):
        names = dict.fromkeys((candidate.name, *candidate.fillings))
        addresses |= names.keys()
        settings = {
            key: value
            for (key, value), owner in zip(by_hand.get("", {}).items(), plain, strict=True)
            if owner == number
        }
        for name in names:
            for key, value in by_hand.get(name, {}).items():
                if key in settings:
                    raise UsageError(f"--set gives {key!r} twice. Give it once.")
                settings[key] = value
        own.append(settings)
    for part in by_hand:
        if part and part not in addresses:
            raise one_of("In --set, the part", part, addresses)
    return own


def _having(key: str, candidates: Sequence[Candidate]) -> int:
    """Return the number of the one candidate that has the hyperparameter `key`."""
    if len(candidates) == 1:
        return 0  # whose own message says what it takes
    legal = [_legal_keys(candidate) for candidate in candidates]
    having = [number for number, keys in enumerate(legal) if keys is None or key in keys]
    if not having:
        known = {
            f"{candidate.name}.{name}"
            for candidate, keys in zip(candidates, legal, strict=True)
            for name in keys or ()
        }
        raise one_of("In --set, the hyperparameter", key, known)
    if len(having) > 1:
        parts = ", ".join(f"{candidates[number].name}.{key}" for number in having)
        raise UsageError(f"--set {key}=… could mean several parts. Say which: {parts}.")
    return having[0]


def _legal_keys(candidate: Candidate) -> frozenset[str] | None:
    """Return the hyperparameters of a candidate, None where anything may be one."""
    if candidate.card is not None:
        return frozenset(candidate.card.hyperparameters)
    return None if candidate.arguments is None else candidate.arguments.legal


def _recipe_settings(texts: Mapping[str, str]) -> dict[str, float]:
    """Return the reference recipe's settings that were given by hand."""
    chosen: dict[str, float] = {}
    for name, text in texts.items():
        if name not in _LEGAL_SETTINGS:
            raise one_of("The recipe setting", name, _LEGAL_SETTINGS)
        kind, low, high = _LEGAL_SETTINGS[name]
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"recipe.{name} takes a number, not {text!r}.") from None
        if not low <= value <= high:
            raise UsageError(f"recipe.{name} must be {within(low, high)}, not {text}.")
        if kind is int and not value.is_integer():
            raise UsageError(f"recipe.{name} takes a whole number, not {text}.")
        chosen[name] = kind(value)
    return chosen


def _point(
    candidate: Candidate, workload: WorkloadCard, warnings: list[str], use_tuned: bool
) -> tuple[dict[str, Scalar], str]:
    """Return the point a part runs at unless it is told otherwise, and its tuning effort."""
    if candidate.card is None:
        return {}, DEFAULTS_EFFORT
    card = candidate.card
    point = {
        name: _recipe_value(candidate, name, workload)
        if known.default == FROM_RECIPE
        else known.default
        for name, known in card.hyperparameters.items()
    }
    effort = DEFAULTS_EFFORT
    # Nobody tunes on a held-out variant: what was tuned on its base has to serve.
    tuned_on = workload
    if workload.variant_of is not None:
        tuned_on = catalogue.workload(workload.variant_of).card
    # A file outside the catalogue may bear the name, but it is not the reference.
    in_catalogue = all(filling.module for filling in candidate.fillings.values())
    if in_catalogue and candidate.name == workload.recipe.optimizer:
        unknown = workload.recipe.hyperparameters.keys() - point.keys()
        if unknown:
            raise UsageError(
                f"The recipe of {workload.name} sets {', '.join(sorted(unknown))}, which "
                f"{candidate.name} does not have. It has: {', '.join(sorted(point))}."
            )
        point |= {name: repr(value) for name, value in workload.recipe.hyperparameters.items()}
        effort = REFERENCE_EFFORT
    elif use_tuned and (tuned := card.tuned.get(tuned_on.name)):
        if tuned.version == tuned_on.version:
            point |= tuned.point
            effort = f"{tuned.trials} trial{'s' if tuned.trials > 1 else ''}"
        else:
            warnings.append(
                f"{candidate.name} was tuned on version {tuned.version} of {tuned_on.name}, which "
                f"is at version {tuned_on.version}: running at its defaults."
            )
    values = {name: card.hyperparameters[name].read(name, text) for name, text in point.items()}
    return values, effort


def _recipe_value(candidate: Candidate, name: str, workload: WorkloadCard) -> str:
    """Return the workload's own value for a hyperparameter whose default is `recipe`."""
    recipe = workload.recipe
    values: dict[str, float] = {
        "warmup_fraction": recipe.warmup_fraction,
        "final_lr_fraction": recipe.final_lr_fraction,
    } | recipe.hyperparameters
    if name not in values:
        raise UsageError(
            f"{candidate.name} takes {name} from the recipe, and that of {workload.name} has none. "
            f"It has: {', '.join(sorted(values))}. Give --set {name}=VALUE."
        )
    return repr(values[name])


def _read_point(candidate: Candidate, texts: Mapping[str, str]) -> dict[str, Scalar]:
    if candidate.card is not None:
        known = candidate.card.hyperparameters
        for name in texts:
            if name not in known:
                raise one_of(f"For {candidate.name} the hyperparameter", name, known, _hint(name))
        return {name: known[name].read(name, text) for name, text in texts.items()}
    if arguments := candidate.arguments:
        for name in texts:
            if name not in arguments.legal:
                legal = arguments.legal
                raise one_of(f"For {candidate.name} the argument", name, legal, _hint(name))
        if missing := sorted(arguments.required - texts.keys()):
            example = " ".join(f"--set {name}=VALUE" for name in missing)
            raise UsageError(
                f"{candidate.name} has no default for {', '.join(missing)}. Give {example}."
            )
    return {name: _free_scalar(name, text) for name, text in texts.items()}


def _hint(name: str) -> str:
    if name not in _LEGAL_SETTINGS:
        return ""
    return f"The reference recipe has one: --set recipe.{name}=VALUE."


def _free_scalar(name: str, text: str) -> Scalar:
    """Read a value of a class without a card as YAML's people expect: number, switch, word."""
    value: Scalar = {"true": True, "false": False}.get(text.lower(), text)
    for kind in (int, float):
        try:
            value = kind(text)
            break
        except ValueError:
            continue
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be finite, not {text}.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UsageError(f"{name} must be {within(-MAX_INTEGER, MAX_INTEGER)}, not {text}.")
    return value


def _files(candidates: Sequence[Candidate]) -> dict[str, Path]:
    """Name each file after itself, numbering namesakes from different folders."""
    paths: dict[Path, None] = {}
    for candidate in candidates:
        paths |= dict.fromkeys(filling.file for filling in candidate.fillings.values())
        if candidate.card_path is not None:
            paths[candidate.card_path] = None
    files: dict[str, Path] = {}
    for path in paths:
        name, number = path.name, 1
        while name in files:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        files[name] = path
    return files


def _digest(files: Mapping[str, Path]) -> str:
    """Hash the code alone: a corrected word on a card makes no new submission."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.suffix == ".py":
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
