import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem

import harness
from harness import catalogue
from harness.cli.parameters import SubmissionName, WorkloadName
from harness.errors import UsageError

SHELLS = ["bash", "zsh", "fish"]
ROOT = Path(harness.__file__).parents[1]


def complete(shell: str, line: str, tmp_path: Path, python_path: Path = ROOT) -> tuple[str, str]:
    """Ask as the shell's script does; return both outputs."""
    words = line.split(" ")
    variables = {
        **os.environ,
        "PYTHONPATH": f"{python_path}{os.pathsep}{ROOT}",
        "_BENCH_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        # fish hands over the word itself, the others its number.
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
        "BENCH_RESULTS": str(tmp_path / "results"),
    }
    result = subprocess.run(
        [sys.executable, "-m", "harness.cli"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.stdout, result.stderr


def offered(shell: str, output: str) -> dict[str, str]:
    """Return the offered words with their help, from the format that the shell's script reads."""
    lines = output.splitlines()
    if shell == "bash":
        return {line.partition(",")[2]: line.partition(",")[0] for line in lines}
    if shell == "fish":
        words = [line.partition(",")[2].split("\t") for line in lines]
        return {word: help_text[0] if help_text else "" for word, *help_text in words}
    return dict(zip(lines[1::3], lines[2::3], strict=True))


@pytest.mark.parametrize("shell", SHELLS)
def test_submissions_and_workloads_complete_in(shell: str, tmp_path: Path) -> None:
    output, errors = complete(shell, "bench run --submission lio", tmp_path)
    assert list(offered(shell, output)) == ["lion"]
    assert errors == ""
    output, _ = complete(shell, "bench run -s lion -w mixture/skills", tmp_path)
    names = [name for name in catalogue.workloads() if name.startswith("mixture/skills")]
    assert sorted(offered(shell, output)) == names
    output, _ = complete(shell, "bench run -s lion -w resnet/d", tmp_path)
    assert "resnet/digits" in offered(shell, output)
    if shell != "bash":
        title = catalogue.workload("resnet/digits").card.title
        assert offered(shell, output)["resnet/digits"] == title
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_broken_card_is_silent_in(shell: str, tmp_path: Path) -> None:
    package = tmp_path / "site" / "broken_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "bad.yaml").write_text("name: [")
    metadata = tmp_path / "site" / "broken_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[timetrial.submissions]\nany = broken_plugin\n")
    output, errors = complete(shell, "bench run -s li", tmp_path, tmp_path / "site")
    assert (output.strip(), errors) == ("", "")
    # The plug-in is there: without the protocol it is an error.
    with_plugin = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    result = subprocess.run(
        [sys.executable, "-m", "harness.cli", "list", "submissions"],
        env=with_plugin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "bad.yaml is not valid YAML" in result.stderr


def test_commands_and_options_complete(tmp_path: Path) -> None:
    output, _ = complete("bash", "bench r", tmp_path)
    assert set(offered("bash", output)) == {"report", "run", "runs"}
    output, _ = complete("bash", "bench run --see", tmp_path)
    assert set(offered("bash", output)) == {"--seed", "--seeds"}


def words(items: list[CompletionItem]) -> list[str]:
    return [item.value for item in items]


def submissions(incomplete: str) -> list[CompletionItem]:
    return SubmissionName().shell_complete(None, None, incomplete)  # type: ignore[arg-type]


def workloads(incomplete: str) -> list[CompletionItem]:
    return WorkloadName().shell_complete(None, None, incomplete)  # type: ignore[arg-type]


def test_what_is_offered_begins_with_what_was_typed() -> None:
    assert words(submissions("")) == list(catalogue.submissions())
    assert words(submissions("zzz")) == []
    assert set(words(workloads("resnet"))) >= {"resnet", "resnet/digits"}


def test_the_last_of_several_names_is_completed() -> None:
    assert words(submissions("lion+adam")) == ["lion+adamw"]
    assert set(words(submissions("lion+"))) >= {"lion+sgd", "lion+adamw"}


@pytest.mark.parametrize("incomplete", ["./my", "../", "/home/", "~/m"])
def test_a_path_is_left_to_the_shell(incomplete: str) -> None:
    (item,) = submissions(incomplete)
    assert (item.type, item.value) == ("file", incomplete)


def test_a_broken_catalogue_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, object]:
        raise UsageError("The card bad.yaml is not valid YAML.")

    monkeypatch.setattr(catalogue, "submissions", broken)
    monkeypatch.setattr(catalogue, "workloads", broken)
    assert submissions("") == []
    assert workloads("") == []
