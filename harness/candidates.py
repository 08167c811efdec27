"""What a name in `--submission` stands for: a card of the catalogue, a file, or a module's class.

Nothing is imported here: a file's classes are read from its syntax tree.
"""

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import catalogue
from harness.cards import Need, Place, SubmissionCard, read_card
from harness.errors import UsageError, one_of

_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """A class for one place, and where its code is."""

    class_name: str
    module: str | None
    file: Path
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One named part of a submission: the places it fills, and its card where it has one."""

    name: str
    fillings: dict[Place, Filling]
    card: SubmissionCard | None
    card_path: Path | None
    arguments: "Arguments | None" = None  # of a class without a card; None: unknown
    warning: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """What a constructor takes by name beside the parameters."""

    legal: frozenset[str]
    required: frozenset[str]


def split_names(submission: str) -> list[str]:
    """Split at `+`, which may also stand in a file's path."""
    names: list[str] = []
    for piece in submission.split("+"):
        if names and _looks_like_path(names[-1]) and not _names_file(names[-1]):
            names[-1] += f"+{piece}"
        else:
            names.append(piece)
    if "" in names:
        raise UsageError(
            f"--submission {submission!r} leaves a name out. "
            "Give one, or several joined by +; see `bench list submissions`."
        )
    return names


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))


def _names_file(name: str) -> bool:
    return name.endswith(".py") or ".py:" in name


def candidate_named(name: str) -> Candidate:
    """Return what `name` stands for.

    Raises:
        UsageError: nothing of that name, or a file or card that cannot be used.
    """
    if _names_file(name):
        return _from_file(name)
    if _looks_like_path(name):
        raise UsageError(f"The submission file {name!r} must end in .py: ./my_method.py[:Class].")
    if _IMPORTABLE.fullmatch(name):
        return _from_module(name)
    entry = catalogue.submission(name)
    package = entry.module.rpartition(".")[0]
    return _described(entry.card, entry.path, package)


def _from_module(text: str) -> Candidate:
    """Describe `torch.optim:NAdam`: any optimizer that can be imported, without a card.

    The module is found and not imported; the trainee learns whether it defines the class.
    """
    module, _, class_name = text.partition(":")
    file = catalogue.module_file(module)
    if file is None:
        raise UsageError(
            f"The module {module!r} of the submission {text!r} cannot be found. "
            "Install it, or correct its name: --submission torch.optim:NAdam."
        )
    return Candidate(
        name=text,
        fillings={"optimizer": Filling(class_name=class_name, module=module, file=file)},
        card=None,
        card_path=None,
    )


def _described(card: SubmissionCard, card_path: Path, package: str | None) -> Candidate:
    """Return what a card describes; its code lies beside it."""
    fillings: dict[Place, Filling] = {}
    for place, filling in card.fillings.items():
        module, _, class_name = filling.implementation.partition(":")
        file = card_path.parent / f"{module}.py"
        if not file.is_file():
            raise UsageError(
                f"The card {card_path} is invalid, field `implementation`: there is no file {file}."
            )
        fillings[place] = Filling(
            class_name=class_name,
            module=f"{package}.{module}" if package else None,
            file=file,
            needs=filling.needs,
        )
    return Candidate(name=card.name, fillings=fillings, card=card, card_path=card_path)


def _from_file(text: str) -> Candidate:
    """Describe `./method.py[:Class]` from its syntax tree: its code runs in the trainee only."""
    before, _, class_name = text.rpartition(":") if ".py:" in text else (text, "", "")
    path = _absolute(before)
    classes = _classes(path)
    card_path = path.with_suffix(".yaml")
    card = read_card(card_path, SubmissionCard) if card_path.is_file() else None
    described = card.implementation.partition(":")[2] if card else ""
    class_name = class_name or described
    if not class_name:
        if not classes:
            raise UsageError(
                f"The submission file {path} defines no class. "
                "It must define an optimizer: a subclass of torch.optim.Optimizer."
            )
        if len(classes) > 1:
            raise UsageError(
                f"The submission file {path} defines {len(classes)} classes "
                f"({', '.join(classes)}). Name the one to run: {before}:CLASS."
            )
        class_name = next(iter(classes))
    if class_name not in classes:
        raise one_of(f"In {path} the class", class_name, classes)
    if card and class_name == described:
        return _described(card, card_path, None)
    return Candidate(
        name=path.stem if len(classes) == 1 else f"{path.stem}:{class_name}",
        fillings={"optimizer": Filling(class_name=class_name, module=None, file=path)},
        card=None,
        card_path=None,
        arguments=_constructor_arguments(class_name, classes),
        warning=(
            f"{card_path.name} describes {described}: {class_name} runs without a card."
            if card
            else None
        ),
    )


def _absolute(text: str) -> Path:
    try:
        text.encode()  # the record is UTF-8
        return Path(text).expanduser().absolute()
    except (UnicodeEncodeError, RuntimeError) as error:  # RuntimeError: ~nobody
        raise UsageError(f"The submission file {text!r} cannot be found: {error}.") from None


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    """Return the classes that a file defines at its top level."""
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"The submission file {path} does not exist.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise UsageError(f"The submission file {path} cannot be read: {error}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the trainee will give them, once
            tree = ast.parse(source, filename=str(path))
    # Deep nesting ends in one of the last two.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = str(error) or type(error).__name__
        raise UsageError(f"The submission file {path} is not valid Python: {problem}.") from None
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _constructor_arguments(name: str, classes: Mapping[str, ast.ClassDef]) -> Arguments | None:
    """Return what `__init__` takes by name, None where only running the code would tell."""
    followed: set[str] = set()
    while name in classes and name not in followed:
        followed.add(name)
        definition = classes[name]
        constructors = [
            node
            for node in definition.body
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        ]
        if constructors:
            return _signature(constructors[-1].args)
        match definition.bases:
            case [ast.Name(id=base)] if not definition.decorator_list:
                name = base
            case _:
                return None
    return None


def _signature(arguments: ast.arguments) -> Arguments | None:
    if arguments.kwarg:
        return None
    positional = [*arguments.posonlyargs, *arguments.args]
    defaulted = positional[len(positional) - len(arguments.defaults) :]
    by_name = [argument for argument in positional[2:] if argument in arguments.args]
    required = [argument for argument in by_name if argument not in defaulted]
    required += [
        argument
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return Arguments(
        legal=frozenset(argument.arg for argument in by_name + arguments.kwonlyargs),
        required=frozenset(argument.arg for argument in required),
    )
