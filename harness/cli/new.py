"""`bench new`: a file, a card and a test to start a submission from; all three work as they are."""

import importlib.resources
import importlib.util
import keyword
import re
import string
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from harness import catalogue
from harness.cards import RESERVED_NAMES, Name
from harness.cli import EXIT_OK
from harness.cli.parameters import CommandGroup
from harness.errors import UsageError

# kind: the folder in submissions/, and of its templates
FOLDERS = {
    "optimizer": "optimizers",
    "schedule": "schedules",
    "data": "data",
    "zeroth-order": "zeroth_order",
    "objective": "objectives",
    "parameterization": "parameterizations",
    "averaging": "averaging",
    "procedure": "procedures",
}
LINE_LENGTH = 100  # of the project's style
LONGEST_NAME = 32  # characters; tables show names whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where the files go."""

    method_folder: Path
    test_folder: Path
    import_path: str  # of the method's module, for the test
    checkout: Path | None  # the one it belongs to


@click.group(cls=CommandGroup)
def new() -> None:
    """Start a submission: file, card and test."""


@new.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(FOLDERS)), required=True, help="The place it is to fill."
)
@click.option(
    "--directory",
    metavar="DIR",
    help="Put the three side by side there. [default: this checkout's folders, else .]",
)
def submission(name: str, kind: str, directory: str | None) -> int:
    """Write the file, card and test of a new submission NAME.

    They hold a small method of that kind, and its test passes: change both, step by step, into
    yours. Nothing that exists is overwritten.
    """
    check_name(name)
    template = {part: _template(kind, part) for part in ("method.py", "card.yaml", "test.py")}
    module = module_name(name)
    destination = _destination(kind, module, directory)
    if destination.checkout is not None and name in catalogue.submissions():
        taken = catalogue.submission(name).path
        raise UsageError(f"There is a submission {name!r}: {taken}. Choose another name.")
    words = set(re.findall(r"\w+", "".join(template.values())))
    fields = {
        "name": name,
        "title": name.replace("-", " ").replace("_", " ").capitalize(),
        "module": module,
        "class_name": (class_name := _class_name(name, words)),
        "import_class": _import_line(destination.import_path, class_name),
    }
    files = {
        destination.method_folder / f"{module}.py": template["method.py"],
        destination.method_folder / f"{module}.yaml": template["card.yaml"],
        destination.test_folder / f"test_{module}.py": template["test.py"],
    }
    contents = {path: string.Template(text).substitute(fields) for path, text in files.items()}
    package = destination.method_folder / "__init__.py"
    if destination.checkout is not None and not package.exists():
        contents[package] = f'"""Submissions of the kind {kind}: file and card side by side."""\n'
    _write(contents)
    _tell(name, destination, list(files))
    return EXIT_OK


def check_name(name: str) -> None:
    """Refuse what a card cannot be named.

    Raises:
        UsageError: names the nearest legal name.
    """
    legal = nearest_legal_name(name)
    if not name or name != legal:
        suggestion = f" Try {legal!r}." if legal else ""
        raise UsageError(
            f"The name {name!r} is not legal: it starts with a lower-case letter or a digit, "
            f"goes on with these, `_`, `.` and `-`, has at most {LONGEST_NAME} characters, ends in "
            f"no `.py`, and is none of {', '.join(sorted(RESERVED_NAMES))}.{suggestion}"
        )


def nearest_legal_name(text: str) -> str:
    """Return `text` where a card may bear it, else the nearest name that it may; '' for none."""
    name = text
    if not _matches(name):
        # `MyMethod` is my-method, as `My method` is.
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text).lower()
        name = re.sub(r"[^a-z0-9_.-]+", "-", apart).lstrip("_.-").rstrip("-")
    if len(name) > LONGEST_NAME:
        name = name[:LONGEST_NAME].rstrip("_.-")
    name = re.sub(r"(\.py)+$", "", name)
    if name in RESERVED_NAMES:
        name = f"my-{name}"
    return name if _matches(name) else ""


def _matches(name: str) -> bool:
    try:
        msgspec.convert(name, type=Name)
    except msgspec.ValidationError:
        return False
    return True


def module_name(name: str) -> str:
    """Return the module of a legal name; one that hides no module of that name elsewhere."""
    module = re.sub(r"[.-]", "_", name)
    if module[0].isdigit():
        module = f"method_{module}"
    # Beside the file, a test's `import random` would find the submission; pytest's own file too.
    taken = keyword.iskeyword(module) or module == "conftest"
    if taken or importlib.util.find_spec(module) is not None:
        module = f"{module}_method"
    return module


def _class_name(name: str, taken: set[str]) -> str:
    """Return the class of a legal name; none that the templates use for something else."""
    parts = re.split(r"[._-]+", name)
    joined = "".join(part[:1].upper() + part[1:] for part in parts)
    if joined[0].isdigit() or joined in taken or keyword.iskeyword(joined):
        joined = f"Method{joined}"
    return joined


def _import_line(import_path: str, class_name: str) -> str:
    line = f"from {import_path} import {class_name}"
    if len(line) > LINE_LENGTH:
        return f"from {import_path} import (\n    {class_name},\n)"
    return line


def _template(kind: str, part: str) -> str:
    folder = importlib.resources.files("harness") / "templates" / "submissions" / FOLDERS[kind]
    return (folder / f"{part}.template").read_text(encoding="utf-8")


def _destination(kind: str, module: str, directory: str | None) -> Destination:
    checkout = None if directory else _checkout(Path.cwd())
    if checkout is None:
        try:
            folder = Path(directory or ".").expanduser()
        except RuntimeError as error:  # ~nobody
            raise UsageError(f"--directory {directory!r} cannot be found: {error}") from None
        return Destination(
            method_folder=folder, test_folder=folder, import_path=module, checkout=None
        )
    return Destination(
        method_folder=checkout / "submissions" / FOLDERS[kind],
        test_folder=checkout / "tests" / "submissions",
        import_path=f"submissions.{FOLDERS[kind]}.{module}",
        checkout=checkout,
    )


def _checkout(here: Path) -> Path | None:
    """Return the checkout of Timetrial that a folder lies in."""
    for folder in (here, *here.parents):
        parts = ("harness/cards", "submissions/__init__.py", "tests/submissions")
        if all((folder / part).exists() for part in parts):
            return folder
    return None


def _write(files: dict[Path, str]) -> None:
    """Write all files or none.

    Raises:
        UsageError: one exists, or cannot be written.
    """
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise UsageError(
            f"Nothing was written, since there is {' and '.join(existing)}. "
            "Choose another name, or another --directory."
        )
    written: list[Path] = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise UsageError(f"Nothing was written: {error}. Choose another --directory.") from None


def _tell(name: str, destination: Destination, files: list[Path]) -> None:
    here = Path.cwd()
    shown = [path.relative_to(here) if path.is_relative_to(here) else path for path in files]
    method, card, test = shown
    click.echo(f"Wrote {method}\n      {card}\n      {test}\n")
    run = name if destination.checkout else (method if method.is_absolute() else f"./{method}")
    click.echo(
        "Next:\n"
        f"  python -m pytest {test}\n"
        f"  bench run -s {run} -w resnet\n"
        "then put your rule into the file, the hand calculation into the test, and the paper, the\n"
        "search ranges and the claim onto the card. CONTRIBUTING.md has the rules of entry."
    )
