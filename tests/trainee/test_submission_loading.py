import random
import sys
from pathlib import Path

import pytest

from harness.spec import Part
from harness.trainee.submission_loading import DisqualifiedError, load_class


def part(class_name: str, *, module: str | None = None, file: Path | None = None) -> Part:
    return Part(
        name="mine",
        place="optimizer",
        class_name=class_name,
        hyperparameters={},
        module=module,
        file=None if file is None else str(file),
    )


def test_a_class_of_a_package() -> None:
    import torch

    assert load_class(part("NAdam", module="torch.optim")) is torch.optim.NAdam


def test_a_file_named_like_a_module_hides_it_from_nobody(tmp_path: Path) -> None:
    file = tmp_path / "random.py"
    file.write_text("class Mine:\n    pass\n")
    found = load_class(part("Mine", file=file))
    assert found.__name__ == "Mine"
    assert sys.modules["random"] is random
    # Dataclasses and pickles look a class's module up.
    assert vars(sys.modules[found.__module__])["Mine"] is found


@pytest.mark.parametrize("name", ["Absent", "function"])
def test_what_is_no_class_disqualifies(tmp_path: Path, name: str) -> None:
    file = tmp_path / "method.py"
    file.write_text("def function():\n    pass\n")
    with pytest.raises(DisqualifiedError, match=f"mine: the module defines no class {name}"):
        load_class(part(name, file=file))


def test_what_the_file_raises_comes_through(tmp_path: Path) -> None:
    file = tmp_path / "method.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_class(part("Mine", file=file))


def test_a_file_runs_once_for_all_its_places(tmp_path: Path) -> None:
    file = tmp_path / "method.py"
    file.write_text(
        "shared = []\n\n\nclass One:\n    seen = shared\n\n\nclass Two:\n    seen = shared\n"
    )
    one, two = (load_class(part(name, file=file)) for name in ("One", "Two"))
    assert one.seen is two.seen  # type: ignore[attr-defined]
    assert load_class(part("One", file=file)) is one


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    files = [tmp_path / folder / "method.py" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("class Mine:\n    pass\n")
    a, b = (load_class(part("Mine", file=file)) for file in files)
    assert a is not b and a.__module__ != b.__module__
    assert vars(sys.modules[a.__module__])["Mine"] is a


def test_a_file_that_failed_leaves_no_half_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "halfway.py"
    file.write_text("x = 1\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_class(part("Mine", file=file))
    assert not any("halfway" in name for name in sys.modules)
    file.write_text("class Mine:\n    pass\n")
    assert load_class(part("Mine", file=file)).__name__ == "Mine"
