import ast
import importlib.util
import keyword
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.cards import RESERVED_NAMES, SubmissionCard, read_card
from harness.cli import main
from harness.cli.new import FOLDERS, check_name, module_name, nearest_legal_name, new
from harness.errors import UsageError

CHECKOUT = Path(harness.__file__).parents[1]
KINDS = pytest.mark.parametrize("kind", FOLDERS)
LONG = "a-name-as-long-as-it-may-be-"


def create(*arguments: str) -> Result:
    return CliRunner().invoke(new, ["submission", *arguments], catch_exceptions=False)


def a_checkout(folder: Path) -> Path:
    """A folder that looks like a checkout: this harness, but no submissions of its own."""
    (folder / "harness").symlink_to(CHECKOUT / "harness", target_is_directory=True)
    for package in ("submissions", "tests/submissions"):
        (folder / package).mkdir(parents=True)
    (folder / "submissions/__init__.py").write_text('"""Submissions."""\n')
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    return folder


def contents(folder: Path) -> Mapping[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(*command: str, cwd: Path) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@KINDS
def test_the_card_is_valid_and_describes_the_file_beside_it(kind: str, tmp_path: Path) -> None:
    create("my-method", "--kind", kind, "--directory", str(tmp_path))
    assert sorted(contents(tmp_path)) == ["my_method.py", "my_method.yaml", "test_my_method.py"]
    card = read_card(tmp_path / "my_method.yaml", SubmissionCard)
    assert (card.name, card.kind) == ("my-method", kind)
    module, _, class_name = card.implementation.partition(":")
    assert module == "my_method"
    tree = ast.parse((tmp_path / "my_method.py").read_text())
    assert class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert len((tmp_path / "my_method.py").read_text().splitlines()) <= 150


def test_every_kind_of_card_can_be_started(tmp_path: Path) -> None:
    kinds = SubmissionCard.__annotations__["kind"].__args__
    assert set(FOLDERS) == set(kinds)
    result = create("x", "--kind", "nonsense", "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert all(kind in result.output for kind in kinds)
    assert contents(tmp_path) == {}


def test_what_is_written_has_the_projects_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = a_checkout(tmp_path)
    monkeypatch.chdir(checkout)
    for kind in FOLDERS:
        create(f"a-{kind}", "--kind", kind)
        create(f"{LONG}{kind[:4]}", "--kind", kind)
    run("-m", "ruff", "check", "--no-cache", "submissions", "tests", cwd=checkout)
    run("-m", "ruff", "format", "--check", "--no-cache", "submissions", "tests", cwd=checkout)


def test_the_tests_pass_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = a_checkout(tmp_path)
    below = checkout / "submissions"
    monkeypatch.chdir(below)  # the checkout is found from any folder in it
    for kind in FOLDERS:
        create(f"inside-{kind}", "--kind", kind)
        assert (below / FOLDERS[kind] / "__init__.py").is_file()
        create(f"beside-{kind}", "--kind", kind, "--directory", f"../beside/{kind}")
    assert len(list((checkout / "tests/submissions").glob("test_*.py"))) == len(FOLDERS)
    # One process for all: most of its time is the import of torch. Warnings are errors in it.
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", "beside", cwd=checkout)


def test_it_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(a_checkout(tmp_path))
    output = create("my-method", "--kind", "schedule").output
    assert "Wrote submissions/schedules/my_method.py" in output
    assert "python -m pytest tests/submissions/test_my_method.py" in output
    assert "bench run -s my-method -w resnet" in output


@pytest.mark.parametrize(
    ("directory", "run_as"), [(None, "./my_method.py"), ("some/where", "./some/where/my_method.py")]
)
def test_outside_a_checkout_the_three_lie_side_by_side(
    directory: str | None, run_as: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["--directory", directory] if directory else []
    output = create("my-method", "--kind", "optimizer", *chosen).output
    assert f"bench run -s {run_as} -w resnet" in output
    folder = tmp_path / (directory or "")
    assert {path.name for path in folder.iterdir()} == {
        "my_method.py",
        "my_method.yaml",
        "test_my_method.py",
    }


@pytest.mark.parametrize("existing", ["my_method.py", "my_method.yaml", "test_my_method.py"])
def test_nothing_that_exists_is_overwritten(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(UsageError, match=rf"Nothing was written.*{existing}"):
        create("my-method", "--kind", "optimizer", "--directory", str(tmp_path))
    assert contents(tmp_path) == {existing: "mine"}


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Nothing was written"):
        create("x", "--kind", "data", "--directory", str(tmp_path / "file" / "below"))
    assert contents(tmp_path) == {"file": ""}


def test_a_name_of_the_catalogue_is_taken_in_a_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("lion", "--kind", "optimizer", "--directory", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(a_checkout(tmp_path))
    with pytest.raises(UsageError, match=r"There is a submission 'lion': .*lion\.yaml"):
        create("lion", "--kind", "optimizer")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MyMethod", "my-method"),
        ("My method", "my-method"),
        ("LION", "lion"),
        ("AdamW2Fast", "adam-w2-fast"),
        ("-x", "x"),
        (".hidden", "hidden"),
        ("lion!", "lion"),
        ("lion\n", "lion"),
        ("lion.py", "lion"),
        ("a.py.py", "a"),
        ("x" * 40, "x" * 32),
        ("twenty-nine-characters-in-all-and-more", "twenty-nine-characters-in-all-an"),
        ("optimizer", "my-optimizer"),
        ("Recipe", "my-recipe"),
        ("sub/folder", "sub-folder"),
        ("naïve", "na-ve"),
        ("", ""),
        ("!!", ""),
        (".py", "py"),
    ],
)
def test_an_illegal_name_is_answered_by_the_nearest_legal_one(name: str, nearest: str) -> None:
    assert nearest_legal_name(name) == nearest
    with pytest.raises(UsageError, match="is not legal") as raised:
        check_name(name)
    assert (f"Try {nearest!r}" in str(raised.value)) == bool(nearest)


@given(st.text(max_size=20))
def test_what_is_suggested_is_legal(text: str) -> None:
    nearest = nearest_legal_name(text)
    if nearest:
        check_name(nearest)
        assert nearest not in RESERVED_NAMES


@given(st.from_regex(r"[a-z0-9][a-z0-9_.-]*", fullmatch=True).filter(lambda n: len(n) < 30))
def test_a_legal_name_gives_a_module_that_can_be_imported(name: str) -> None:
    module = module_name(name)
    assert module.isidentifier()
    assert not keyword.iskeyword(module)


@pytest.mark.parametrize(
    "name", ["random", "torch", "lambda", "8bit-adam", "tensor", "schedule.x", "conftest"]
)
def test_a_name_that_python_uses_is_no_obstacle(name: str, tmp_path: Path) -> None:
    create(name, "--kind", "optimizer", "--directory", str(tmp_path))
    card = read_card(next(tmp_path.glob("*.yaml")), SubmissionCard)
    module, _, class_name = card.implementation.partition(":")
    assert importlib.util.find_spec(module) is None
    assert module != "conftest"
    source = (tmp_path / f"{module}.py").read_text()
    compile(source, module, "exec")
    assert source.count(f"class {class_name}(") == 1
    assert class_name not in {"Tensor", "Torch"} or f"import {class_name}" not in source


def test_a_class_does_not_hide_what_it_builds_on(tmp_path: Path) -> None:
    create("schedule_", "--kind", "schedule", "--directory", str(tmp_path))
    card = read_card(next(tmp_path.glob("*.yaml")), SubmissionCard)
    assert card.implementation == "schedule_:MethodSchedule"


def test_a_users_mistake_exits_2_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments in (["X", "--kind", "data"], ["x"], ["x", "--kind", "sort"], []):
        with pytest.raises(SystemExit) as ended:
            main(["new", "submission", *arguments, "--directory", str(tmp_path)])
        assert ended.value.code == 2
        assert "Traceback" not in capsys.readouterr().err
    assert contents(tmp_path) == {}
