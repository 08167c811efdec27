"""Turns `--submission lion --set lr=1e-3` into a recipe: the reference with parts replaced."""

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from harness import catalogue
from harness.cards import Scalar, SubmissionCard, WorkloadCard, read_card
from harness.errors import UsageError, one_of
from harness.spec import Part, Recipe

REFERENCE_EFFORT = "reference"
DEFAULTS_EFFORT = "defaults"
BY_HAND_EFFORT = "by hand"  # points given with --set: nobody knows what they cost


class RecipeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference recipe's own settings, `--set recipe.NAME=VALUE`."""

    batch_size: int | None = None
    horizon_examples: int | None = None
    warmup_fraction: float | None = None
    final_lr_fraction: float | None = None
    clip_norm: float | None = None
    label_smoothing: float | None = None


_LEGAL_SETTINGS: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1e9),
    "horizon_examples": (1, 1e15),
    "warmup_fraction": (0, 1),
    "final_lr_fraction": (0, 1),
    "clip_norm": (1e-12, 1e12),
    "label_smoothing": (0, 1),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    name: str
    place: Literal["optimizer"]
    class_name: str
    module: str | None
    file: Path
    card: SubmissionCard | None
    card_path: Path | None
    arguments: frozenset[str] | None  # of a class without a card; None: unknown


def resolve(submission: str, workload: WorkloadCard, settings: Sequence[str]) -> Resolved:
    """Resolve names and `key=value` settings against the cards.

    Raises:
        UsageError: an unknown name or key, a value out of range, two parts for one place.
    """
    candidates = [_candidate(name) for name in submission.split("+")]
    by_place: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.place in by_place:
            raise UsageError(
                f"{by_place[candidate.place].name!r} and {candidate.name!r} both fill the place "
                f"`{candidate.place}`. Name one of them."
            )
        by_place[candidate.place] = candidate
    if "optimizer" not in by_place:
        candidates.append(_candidate(workload.recipe.optimizer))

    by_hand = _split_settings(settings)
    own = _own_settings(by_hand, candidates)
    recipe_settings = _recipe_settings(by_hand.pop("recipe", {}))
    warnings: list[str] = []
    parts: list[Part] = []
    efforts: list[str] = []
    for candidate, hand in zip(candidates, own, strict=True):
        point, effort = _point(candidate, workload, warnings)
        point |= _read_point(candidate, hand)
        parts.append(
            Part(
                name=candidate.name,
                place=candidate.place,
                class_name=candidate.class_name,
                hyperparameters=point,
                module=candidate.module,
                file=None if candidate.module else str(candidate.file),
            )
        )
        efforts.append(BY_HAND_EFFORT if hand else effort)
    reference = workload.recipe
    recipe = Recipe(
        parts=parts,
        batch_size=recipe_settings.batch_size or workload.batch_size,
        horizon_examples=recipe_settings.horizon_examples or workload.horizon_examples,
        warmup_fraction=_first(recipe_settings.warmup_fraction, reference.warmup_fraction),
        final_lr_fraction=_first(recipe_settings.final_lr_fraction, reference.final_lr_fraction),
        decay_exempt_roles=reference.decay_exempt_roles,
        clip_norm=_first(recipe_settings.clip_norm, reference.clip_norm),
        label_smoothing=_first(recipe_settings.label_smoothing, reference.label_smoothing),
    )
    if recipe.batch_size > workload.data.training_examples:
        raise UsageError(
            f"recipe.batch_size={recipe.batch_size} is more than the "
            f"{workload.data.training_examples} training examples of {workload.name}."
        )
    touched = {
        f"recipe.{name}": value
        for name, value in msgspec.structs.asdict(recipe_settings).items()
        if value is not None
    }
    files = _files(candidates)
    return Resolved(
        name="+".join(candidate.name for candidate in candidates),
        recipe=recipe,
        hyperparameters=_flat(parts) | touched,
        tuning_effort=BY_HAND_EFFORT if touched else _joint_effort(efforts),
        files=files,
        source_sha256=_digest(files),
        warnings=warnings,
    )


def _first(chosen: float | None, otherwise: float | None) -> float | None:
    return otherwise if chosen is None else chosen


def _flat(parts: Sequence[Part]) -> dict[str, Scalar]:
    """Name hyperparameters plainly when there is one part, `part.key` when there are several."""
    if len(parts) == 1:
        return dict(parts[0].hyperparameters)
    return {
        f"{part.name}.{key}": value for part in parts for key, value in part.hyperparameters.items()
    }


def _joint_effort(efforts: Sequence[str]) -> str:
    distinct = dict.fromkeys(efforts)
    for effort in (BY_HAND_EFFORT, *(e for e in distinct if e != REFERENCE_EFFORT)):
        if effort in distinct:
            return effort
    return REFERENCE_EFFORT


def _candidate(name: str) -> _Candidate:
    if name.endswith(".py") or ".py:" in name:
        return _from_file(name)
    entry = catalogue.submission(name)
    return _Candidate(
        name=name,
        place=entry.card.kind,
        class_name=entry.card.implementation.partition(":")[2],
        module=entry.module,
        file=entry.module_path,
        card=entry.card,
        card_path=entry.path,
        arguments=None,
    )


def _from_file(text: str) -> _Candidate:
    """Describe `./method.py[:Class]` from its syntax tree: its code runs in the trainee only."""
    before, _, class_name = text.rpartition(":") if ".py:" in text else (text, "", "")
    path = Path(before).expanduser().absolute()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except FileNotFoundError:
        raise UsageError(f"The submission file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The submission file {path} cannot be read: {error}.") from None
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"The submission file {path} is not valid Python: {error}.") from None
    card_path = path.with_suffix(".yaml")
    card = read_card(card_path, SubmissionCard) if card_path.is_file() else None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if card and not class_name:
        class_name = card.implementation.partition(":")[2]
    if not class_name:
        if len(classes) != 1:
            raise UsageError(
                f"{path} defines {len(classes)} classes"
                + (f" ({', '.join(classes)})" if classes else "")
                + f". Name the one to run: {before}:CLASS."
            )
        class_name = next(iter(classes))
    if class_name not in classes:
        raise one_of(f"In {path} the class", class_name, classes)
    return _Candidate(
        name=card.name if card else path.stem if len(classes) == 1 else f"{path.stem}:{class_name}",
        place="optimizer",
        class_name=class_name,
        module=None,
        file=path,
        card=card,
        card_path=card_path if card else None,
        arguments=None if card else _constructor_arguments(classes[class_name]),
    )


def _constructor_arguments(definition: ast.ClassDef) -> frozenset[str] | None:
    """Return what `__init__` takes beside self and the parameters, None if it is inherited."""
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            if node.args.kwarg:
                return None
            names = [argument.arg for argument in node.args.args[2:] + node.args.kwonlyargs]
            return frozenset(names)
    return None


def _split_settings(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Group `[part.]key=value` by part; a key without a part stands under ''."""
    grouped: dict[str, dict[str, str]] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        part, _, name = key.strip().rpartition(".")
        if not equals or not name or not value.strip():
            raise UsageError(f"--set takes key=value, not {setting!r}. Example: --set lr=1e-3")
        if name in grouped.setdefault(part, {}):
            raise UsageError(f"--set gives {key.strip()!r} twice. Give it once.")
        grouped[part][name] = value.strip()
    return grouped


def _own_settings(
    by_hand: Mapping[str, dict[str, str]], candidates: Sequence[_Candidate]
) -> list[dict[str, str]]:
    """Hand each part the settings addressed to it by name, by place, or plainly."""
    own: list[dict[str, str]] = []
    addresses = {"", "recipe"}
    for candidate in candidates:
        names = {candidate.name, candidate.place}
        addresses |= names
        own.append({k: v for name in names for k, v in by_hand.get(name, {}).items()})
    for part in by_hand:
        if part not in addresses:
            raise one_of("In --set, the part", part, addresses - {""})
    for key, value in by_hand.get("", {}).items():
        if len(candidates) > 1:
            parts = ", ".join(f"{candidate.name}.{key}" for candidate in candidates)
            raise UsageError(f"--set {key}=… could mean several parts. Say which: {parts}.")
        if key in own[0]:
            raise UsageError(f"--set gives {key!r} twice. Give it once.")
        own[0][key] = value
    return own


def _recipe_settings(texts: Mapping[str, str]) -> RecipeSettings:
    for name, text in texts.items():
        if name not in _LEGAL_SETTINGS:
            raise one_of("The recipe setting", name, _LEGAL_SETTINGS)
        low, high = _LEGAL_SETTINGS[name]
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"recipe.{name} takes a number, not {text!r}.") from None
        if not low <= value <= high:
            raise UsageError(f"recipe.{name} must lie in [{low:g}, {high:g}], not {text}.")
    try:
        return msgspec.convert(dict(texts), type=RecipeSettings, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"--set recipe…: {error}.") from None


def _point(
    candidate: _Candidate, workload: WorkloadCard, warnings: list[str]
) -> tuple[dict[str, Scalar], str]:
    """Return the point a part runs at unless it is told otherwise, and its tuning effort."""
    if candidate.card is None:
        return {}, DEFAULTS_EFFORT
    card = candidate.card
    point = {name: known.default for name, known in card.hyperparameters.items()}
    effort = DEFAULTS_EFFORT
    if candidate.name == workload.recipe.optimizer:
        unknown = workload.recipe.hyperparameters.keys() - point.keys()
        if unknown:
            raise UsageError(
                f"The recipe of {workload.name} sets {', '.join(sorted(unknown))}, which "
                f"{candidate.name} does not have. It has: {', '.join(sorted(point))}."
            )
        point |= {name: repr(value) for name, value in workload.recipe.hyperparameters.items()}
        effort = REFERENCE_EFFORT
    elif tuned := card.tuned.get(workload.name):
        if tuned.version == workload.version:
            point |= tuned.point
            effort = f"{tuned.trials} trials"
        else:
            warnings.append(
                f"{candidate.name} was tuned on version {tuned.version} of {workload.name}, which "
                f"is at version {workload.version}: running at its defaults."
            )
    values = {name: card.hyperparameters[name].read(name, text) for name, text in point.items()}
    return values, effort


def _read_point(candidate: _Candidate, texts: Mapping[str, str]) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    for name, text in texts.items():
        if candidate.card is not None:
            known = candidate.card.hyperparameters
            if name not in known:
                raise one_of(f"For {candidate.name} the hyperparameter", name, known)
            values[name] = known[name].read(name, text)
        else:
            if candidate.arguments is not None and name not in candidate.arguments:
                raise one_of(f"For {candidate.name} the argument", name, candidate.arguments)
            values[name] = _free_scalar(text)
    return values


def _free_scalar(text: str) -> Scalar:
    """Read a value of a class without a card as YAML's people expect: number, switch, word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _files(candidates: Sequence[_Candidate]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for candidate in candidates:
        for path in (candidate.file, candidate.card_path):
            if path is not None:
                files[path.name] = path
    return files


def _digest(files: Mapping[str, Path]) -> str:
    """Hash the code alone: a corrected word on a card makes no new submission."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.suffix == ".py":
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
