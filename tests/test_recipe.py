from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from example_cards import SUBMISSION, changed
from hypothesis import given
from hypothesis import strategies as st
from records.synthetic_runs import workload_card

from harness import catalogue
from harness.cards import SubmissionCard, WorkloadCard, parse_card
from harness.catalogue import Entry
from harness.errors import UsageError
from harness.recipe import Resolved, resolve

CARD = workload_card()  # reference: adamw at lr 0.001, batches of 10 of 1000 examples

METHOD = """\
import torch

class Method(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, *, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})
"""


@pytest.fixture
def method(tmp_path: Path) -> Path:
    path = tmp_path / "method.py"
    path.write_text(METHOD)
    return path


def with_card(path: Path, **changes: Any) -> Path:
    """Put a card beside a submission's file."""
    document = SUBMISSION | {"name": "method", "implementation": f"{path.stem}:Method"} | changes
    path.with_suffix(".yaml").write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def catalogued(method: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Entry[SubmissionCard]]:
    """The bundled submissions and `steady`, the example card with `method.py` as its code."""
    document = changed(SUBMISSION, "implementation", "method:Method")
    card = parse_card(yaml.safe_dump(document), SubmissionCard, "steady.yaml")
    path = method.with_name("steady.yaml")
    path.write_text(yaml.safe_dump(document))
    known = dict(catalogue.submissions())
    known["steady"] = Entry(card=card, path=path, module="plugin.method")
    monkeypatch.setattr(catalogue, "submissions", lambda: known)
    return known


def refused(submission: object, settings: Sequence[str] = (), card: WorkloadCard = CARD) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(str(submission), card, settings)
    return str(caught.value)


def point(resolved: Resolved) -> dict[str, Any]:
    return dict(resolved.recipe.part("optimizer").hyperparameters)


# Where a value comes from.


def test_the_reference_runs_at_the_cards_point_and_its_own_defaults() -> None:
    resolved = resolve("adamw", CARD, [])
    assert point(resolved)["lr"] == 0.001
    assert point(resolved)["beta1"] == 0.9
    assert resolved.tuning_effort == "reference"
    assert resolved.name == "adamw"
    assert resolved.hyperparameters == point(resolved)


def test_what_is_not_tuned_runs_at_its_defaults() -> None:
    resolved = resolve("lion", CARD, [])
    assert point(resolved) == {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}
    assert resolved.tuning_effort == "defaults"
    assert resolved.recipe.part("optimizer").module == "submissions.optimizers.lion"


@pytest.mark.usefixtures("catalogued")
def test_set_goes_before_tuned_and_tuned_before_default() -> None:
    tuned = resolve("steady", CARD, [])
    assert point(tuned) == {"lr": 0.2, "beta1": 0.9, "power": 2, "nesterov": True}
    assert tuned.tuning_effort == "5 trials"
    by_hand = resolve("steady", CARD, ["lr=0.3", "nesterov=false"])
    assert point(by_hand) == {"lr": 0.3, "beta1": 0.9, "power": 2, "nesterov": False}
    assert by_hand.tuning_effort == "by hand"
    assert by_hand.warnings == []


@pytest.mark.usefixtures("catalogued")
def test_a_point_tuned_on_another_version_is_skipped_with_a_warning() -> None:
    resolved = resolve("steady", workload_card(version=2), [])
    assert point(resolved)["lr"] == 0.1
    assert resolved.tuning_effort == "defaults"
    (warning,) = resolved.warnings
    assert "version 1 of blobs/two, which is at version 2: running at its defaults" in warning


@pytest.mark.parametrize("address", ["lr", "lion.lr", "optimizer.lr", " lr "])
def test_a_setting_may_name_the_part_or_the_place(address: str) -> None:
    assert point(resolve("lion", CARD, [f"{address}= 3e-4 "]))["lr"] == 3e-4


def test_the_references_own_settings() -> None:
    settings = ["recipe.batch_size=20", "recipe.horizon_examples=2e4", "recipe.clip_norm=1"]
    settings += ["recipe.warmup_fraction=0.2", "recipe.label_smoothing=0"]
    resolved = resolve("adamw", CARD, settings)
    assert resolved.recipe.batch_size == 20
    assert resolved.recipe.horizon_examples == 20_000
    assert isinstance(resolved.recipe.horizon_examples, int)
    assert resolved.recipe.clip_norm == 1.0
    assert resolved.recipe.warmup_fraction == 0.2
    assert resolved.recipe.final_lr_fraction == CARD.recipe.final_lr_fraction
    assert resolved.hyperparameters["recipe.batch_size"] == 20
    assert resolved.hyperparameters["recipe.label_smoothing"] == 0
    assert resolved.tuning_effort == "by hand"


def test_without_settings_the_recipe_is_the_cards() -> None:
    recipe = resolve("lion", CARD, []).recipe
    assert (recipe.batch_size, recipe.horizon_examples) == (10, 10_000)
    assert (recipe.clip_norm, recipe.label_smoothing) == (None, 0.0)


# What is refused.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["lr"], "--set takes KEY=VALUE, not 'lr'. Example: --set lr=1e-3"),
        (["lr="], "--set takes KEY=VALUE"),
        (["=1"], "--set takes KEY=VALUE"),
        ([".lr=1"], "--set takes KEY=VALUE"),
        (["lion.=1"], "--set takes KEY=VALUE"),
        ([""], "--set takes KEY=VALUE"),
        (["lr=\udcff"], "--set takes KEY=VALUE, not 'lr=\\udcff'"),
        (["lr=1", "lr=2"], "--set gives 'lr' twice"),
        (["lr=1", "lion.lr=2"], "--set gives 'lr' twice"),
        (["optimizer.lr=1", "lion.lr=2"], "--set gives 'lr' twice"),
        (["rl=1"], "For lion the hyperparameter 'rl' does not exist. Did you mean 'lr'? Available"),
        (["batch_size=8"], "The reference recipe has one: --set recipe.batch_size=VALUE."),
        (["lr=fast"], "lr takes a number, not 'fast'. Default: 1.0e-4."),
        (["lr=nan"], "lr must be at least 0, not nan. Default"),
        (["lr=-1"], "lr must be at least 0, not -1. Default"),
        (["beta1=1"], "beta1 must be in [0, 0.9999], not 1. Default: 0.9."),
        (
            ["adamw.lr=1"],
            "In --set, the part 'adamw' does not exist. Available: lion, optimizer, r",
        ),
        (["a.b.lr=1"], "In --set, the part 'a.b' does not exist"),
        (["recipe.batchsize=8"], "'batchsize' does not exist. Did you mean 'batch_size'?"),
        (["recipe.batch_size=x"], "recipe.batch_size takes a number, not 'x'"),
        (["recipe.batch_size=8.5"], "recipe.batch_size takes a whole number, not 8.5"),
        (["recipe.batch_size=0"], "recipe.batch_size must be in [1, 1000000000], not 0"),
        (["recipe.batch_size=nan"], "must be in [1, 1000000000], not nan"),
        (["recipe.batch_size=1001"], "recipe.batch_size=1001 is more than the 1000 training exam"),
        (["recipe.warmup_fraction=2"], "recipe.warmup_fraction must be in [0, 1], not 2"),
        (["recipe.lr=1", "recipe.lr=1"], "--set gives 'recipe.lr' twice"),
    ],
)
def test_a_wrong_setting_names_what_is_legal(settings: list[str], expected: str) -> None:
    assert expected in refused("lion", settings)


_KEYS = ("lr", "lion.beta1", "optimizer.lr", "recipe.batch_size", "recipe.clip_norm")
_VALUES = ("1", "0.5", "-1", "1e3", "nan", "inf", "9" * 400, "true", "0x1", "٣")


@given(
    st.sampled_from(_KEYS) | st.text(max_size=20), st.sampled_from(_VALUES) | st.text(max_size=20)
)
def test_any_setting_is_applied_or_refused(key: str, value: str) -> None:
    try:
        resolved = resolve("lion", CARD, [f"{key}={value}"])
    except UsageError:
        return
    assert resolved.tuning_effort == "by hand"


def test_two_parts_for_one_place_are_both_named() -> None:
    expected = "'lion' and 'sgd' both fill the place `optimizer`. Name one of them."
    assert refused("lion+sgd") == expected
    assert "'lion' and 'lion' both fill" in refused("lion+lion")


@pytest.mark.parametrize("name", ["", "+", "lion+", "+lion", "lion++sgd"])
def test_an_empty_name_is_refused(name: str) -> None:
    assert refused(name).startswith(f"--submission {name!r} leaves a name out")


def test_an_unknown_name_gets_the_nearest() -> None:
    assert "'lyon' does not exist. Did you mean 'lion'" in refused("lyon")


def test_a_card_without_its_code_is_named(catalogued: dict[str, Any], method: Path) -> None:
    method.unlink()
    assert f"field `implementation`: there is no file {method}" in refused("steady")


def test_a_recipe_that_its_optimizer_does_not_know_is_refused() -> None:
    recipe = msgspec.structs.replace(CARD.recipe, hyperparameters={"rate": 0.1})
    card = msgspec.structs.replace(CARD, recipe=recipe)
    assert "sets rate, which adamw does not have. It has: beta1" in refused("adamw", card=card)


# Files.


def test_a_file_with_one_class_needs_no_more(method: Path) -> None:
    resolved = resolve(str(method), CARD, ["lr=1e-2", "momentum=0"])
    part = resolved.recipe.part("optimizer")
    assert (resolved.name, part.class_name) == ("method", "Method")
    assert (part.module, part.file) == (None, str(method))
    assert part.hyperparameters == {"lr": 0.01, "momentum": 0}
    assert resolved.tuning_effort == "by hand"
    assert resolve(str(method), CARD, []).tuning_effort == "defaults"
    assert resolved.files == {"method.py": method}


def test_a_relative_path_and_a_home_directory(
    method: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(method.parent)
    monkeypatch.setenv("HOME", str(method.parent))
    for text in ("method.py", "./method.py", "./method.py:Method", "~/method.py", "./method.py:"):
        assert resolve(text, CARD, []).recipe.part("optimizer").file == str(method)


def test_a_plus_in_a_path_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "c++" / "a+b.py"
    path.parent.mkdir()
    path.write_text(METHOD)
    assert resolve(str(path), CARD, []).name == "a+b"
    assert "'a+b' and 'lion' both fill" in refused(f"{path}+lion")
    assert "'lion' and 'a+b:Other' both fill" in refused(f"lion+{_with_other(path)}:Other")


def _with_other(path: Path) -> Path:
    path.write_text(METHOD + "\nclass Other(Method):\n    pass\n")
    return path


def test_a_class_is_chosen_by_name(method: Path) -> None:
    resolved = resolve(f"{_with_other(method)}:Other", CARD, ["lr=1"])
    assert (resolved.name, resolved.recipe.part("optimizer").class_name) == (
        "method:Other",
        "Other",
    )


@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        (None, "", "does not exist"),
        (None, ":Method", "does not exist"),
        ("", "", "defines no class. It must define an optimizer: a subclass of torch.optim.Optim"),
        ("x = 1", ":Method", "the class 'Method' does not exist. Available: none"),
        ("class A: ...\nclass B: ...", "", "defines 2 classes (A, B). Name the one to run: "),
        ("class Method: ...", ":Methed", "'Methed' does not exist. Did you mean 'Method'? Availab"),
        ("class Method: ...", ":a.b", "the class 'a.b' does not exist"),
        ("def f(:\n", "", "is not valid Python: invalid syntax"),
        ("class A:\nx", "", "is not valid Python: expected an indented block"),
        (b"\xff\xfe\x00", "", "is not valid Python"),
        (b"# coding: klingon\n", "", "is not valid Python: unknown encoding: klingon"),
        (b"a = '\x00'", "", "is not valid Python: "),
        ("(" * 5000, "", "is not valid Python: too many nested parentheses"),
        ("-" * 100_000 + "1", "", "is not valid Python: "),
        ("if 1:\n    class Method: ...", "", "defines no class"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, content: str | bytes | None, suffix: str, expected: str
) -> None:
    path = tmp_path / "method.py"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(f"{path}{suffix}")
    assert expected in message
    assert str(path) in message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "method.py"
    folder.mkdir()
    assert "cannot be read: [Errno 21] Is a directory" in refused(folder)


@pytest.mark.parametrize("text", ["./lion", "../lion.txt", "/", "~", "~/a+b"])
def test_a_path_must_end_in_py(text: str) -> None:
    assert refused(text) == (
        f"The submission file {text!r} must end in .py: ./my_method.py[:Class]."
    )


@pytest.mark.parametrize("text", ["~nobody-of-that-name/a.py", "./\udcff.py", "./\x00.py"])
def test_an_impossible_path_is_refused(text: str) -> None:
    assert "cannot be " in refused(text)


def test_a_byte_order_mark_and_an_old_escape_are_no_errors(tmp_path: Path) -> None:
    path = tmp_path / "method.py"
    path.write_bytes(b"\xef\xbb\xbf" + b"x = '\\d'\n" + METHOD.encode())
    assert resolve(str(path), CARD, []).name == "method"


@pytest.mark.parametrize(
    ("signature", "settings", "expected"),
    [
        ("self, params, lr=1", ["rate=1"], "the argument 'rate' does not exist. Available: lr."),
        ("self, params, /, lr=1", ["rl=1"], "'rl' does not exist. Did you mean 'lr'?"),
        ("self, params, lr=1, /", ["lr=1"], "the argument 'lr' does not exist. Available: none."),
        ("self, params, *, lr=1", ["params=1"], "'params' does not exist"),
        ("self, params, lr", [], "method has no default for lr. Give --set lr=VALUE."),
        ("self, params, *, a, lr", ["lr=1"], "no default for a. Give --set a=VALUE."),
        ("self, params, lr=1", ["lr=inf"], "lr must be finite, not inf"),
        ("self, params, lr=1", ["lr=1e999"], "lr must be finite, not 1e999"),
        ("self, params, lr=1", ["recipe.x=1"], "The recipe setting 'x' does not exist"),
    ],
)
def test_the_constructor_tells_what_can_be_set(
    tmp_path: Path, signature: str, settings: list[str], expected: str
) -> None:
    path = tmp_path / "method.py"
    path.write_text(f"class Method:\n    def __init__({signature}): ...\n")
    assert expected in refused(path, settings)


@pytest.mark.parametrize(
    "text",
    [
        "class Method:\n    def __init__(self, params, **options): ...",
        "class Method(torch.optim.SGD): ...",
        "class Method(Missing, Mixed): ...",
        "class Method(Method): ...",
    ],
)
def test_what_only_running_would_tell_is_left_to_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "method.py"
    path.write_text(text)
    settings = ["a=1", "b=2.5", "c=TRUE", "d=word", "e=1e3", "f=none"]
    expected = {"a": 1, "b": 2.5, "c": True, "d": "word", "e": 1000.0, "f": "none"}
    assert point(resolve(str(path), CARD, settings)) == expected


def test_an_inherited_constructor_of_the_file_is_followed(method: Path) -> None:
    assert "Available: lr, momentum" in refused(f"{_with_other(method)}:Other", ["x=1"])


# A card beside a file.


def test_a_card_beside_a_file_describes_its_class(method: Path) -> None:
    resolved = resolve(str(with_card(method)), CARD, [])
    assert resolved.name == "method"
    assert point(resolved)["lr"] == 0.2
    assert resolved.tuning_effort == "5 trials"
    assert list(resolved.files) == ["method.py", "method.yaml"]
    assert "For method the hyperparameter 'x' does not exist" in refused(method, ["x=1"])


def test_a_card_chooses_among_several_classes(method: Path) -> None:
    with_card(_with_other(method))
    assert resolve(str(method), CARD, []).recipe.part("optimizer").class_name == "Method"


def test_a_card_does_not_describe_another_class_of_the_file(method: Path) -> None:
    with_card(_with_other(method))
    resolved = resolve(f"{method}:Other", CARD, [])
    assert resolved.name == "method:Other"
    assert point(resolved) == {}
    assert resolved.tuning_effort == "defaults"
    assert resolved.warnings == ["method.yaml describes Method: Other runs without a card."]
    assert list(resolved.files) == ["method.py"]


def test_a_broken_card_beside_a_file_is_named(method: Path) -> None:
    method.with_suffix(".yaml").write_text("name: [")
    assert f"The card {method.with_suffix('.yaml')} is not valid YAML" in refused(method)


def test_a_card_of_a_class_that_the_file_lacks_is_refused(method: Path) -> None:
    with_card(method, implementation="method:Methud")
    assert "the class 'Methud' does not exist. Did you mean 'Method'?" in refused(method)


def test_a_file_under_the_references_name_is_not_the_reference(method: Path) -> None:
    resolved = resolve(str(with_card(method, name="adamw", tuned={})), CARD, [])
    assert resolved.name == "adamw"
    assert resolved.tuning_effort == "defaults"
    assert point(resolved)["lr"] == 0.1


# The source that is kept.


def test_the_hash_is_the_codes_and_not_the_cards(method: Path) -> None:
    def source() -> str:
        return resolve(str(method), CARD, []).source_sha256

    bare = source()
    with_card(method)
    assert source() == bare
    with_card(method, title="A corrected title")
    assert source() == bare
    method.write_text(METHOD + "\n# changed\n")
    assert source() != bare


def test_the_settings_are_no_part_of_the_hash() -> None:
    first, second = (resolve("lion", CARD, [f"lr={lr}"]) for lr in (1, 2))
    assert first.source_sha256 == second.source_sha256
    assert first.source_sha256 != resolve("sgd", CARD, []).source_sha256


def test_namesakes_from_two_folders_are_both_kept_and_hashed(tmp_path: Path) -> None:
    from harness.candidates import Candidate, Filling
    from harness.recipe import _digest, _files

    candidates = []
    for folder in ("one", "two"):
        path = tmp_path / folder / "method.py"
        path.parent.mkdir()
        path.write_text(f"# {folder}\n")
        candidates.append(
            Candidate(
                name=folder,
                fillings={"optimizer": Filling(class_name="Method", module=None, file=path)},
                card=None,
                card_path=None,
            )
        )
    files = _files(candidates)
    assert list(files) == ["method.py", "method-2.py"]
    before = _digest(files)
    (tmp_path / "one" / "method.py").write_text("# changed\n")
    assert _digest(files) != before


def test_any_importable_optimizer_is_a_submission() -> None:
    resolved = resolve(
        "torch.optim:NAdam", CARD, ["optimizer.lr=2e-3", "decoupled_weight_decay=true"]
    )
    (part,) = resolved.recipe.parts
    assert (part.module, part.class_name, part.file) == ("torch.optim", "NAdam", None)
    assert part.hyperparameters == {"lr": 0.002, "decoupled_weight_decay": True}
    assert resolved.name == "torch.optim:NAdam"
    assert resolved.tuning_effort == "by hand"
    assert list(resolved.files) == ["__init__.py"]


@pytest.mark.parametrize("name", ["torch.optimm:NAdam", "no_such_package:Class", "a.b.c:D"])
def test_a_module_that_cannot_be_found_is_named(name: str) -> None:
    assert f"The module {name.partition(':')[0]!r}" in refused(name)


def test_nothing_averages_beside_a_procedure() -> None:
    assert "'v-cycle' owns the loop, so 'ema' has no steps" in refused("v-cycle+ema")


def test_a_card_may_take_the_workloads_own_value() -> None:
    card = msgspec.structs.replace(
        CARD, recipe=msgspec.structs.replace(CARD.recipe, warmup_fraction=0.25)
    )
    uba = next(part for part in resolve("uba", card, []).recipe.parts if part.name == "uba")
    assert uba.hyperparameters["warmup_fraction"] == 0.25
    resolved = resolve("uba", card, ["uba.warmup_fraction=0.5"])
    uba = next(part for part in resolved.recipe.parts if part.name == "uba")
    assert uba.hyperparameters["warmup_fraction"] == 0.5


def test_methods_of_several_places_compose() -> None:
    resolved = resolve("lion+uba+rs2+ema", CARD, ["lion.lr=3e-4"])
    assert resolved.name == "lion+uba+rs2+ema"
    places = {part.place: part.name for part in resolved.recipe.parts}
    assert places == {"optimizer": "lion", "schedule": "uba", "data": "rs2", "averaging": "ema"}
    assert resolved.hyperparameters["lion.lr"] == 3e-4
    assert resolved.hyperparameters["rs2.fraction"] == 0.1
    assert refused("schedule-free+uba").startswith("'schedule-free' and 'uba' both fill the place")


def test_a_plain_setting_is_the_one_parts_that_has_it() -> None:
    resolved = resolve("uba+rs2", CARD, ["phi=0.75", "fraction=0.5", "beta2=0.95"])
    assert resolved.hyperparameters["uba.phi"] == 0.75
    assert resolved.hyperparameters["rs2.fraction"] == 0.5
    assert resolved.hyperparameters["adamw.beta2"] == 0.95  # the reference's optimizer


def test_a_plain_setting_that_several_parts_have_must_say_which() -> None:
    assert refused("schedule-free+selective-backprop", ["beta=0.5"]) == (
        "--set beta=… could mean several parts. "
        "Say which: schedule-free.beta, selective-backprop.beta."
    )
    resolved = resolve("schedule-free+selective-backprop", CARD, ["schedule-free.beta=0.5"])
    assert resolved.hyperparameters["selective-backprop.beta"] == 1.0


def test_a_plain_setting_that_no_part_has_names_those_that_exist() -> None:
    message = refused("lion+uba", ["phii=1"])
    assert message.startswith("In --set, the hyperparameter 'phii' does not exist.")
    assert "lion.lr" in message and "uba.phi," in message


def test_the_effort_of_a_composition_does_not_hang_on_the_order() -> None:
    card = catalogue.workload("resnet").card
    for names in ("lion+stablemax", "stablemax+lion"):
        assert resolve(names, card, []).tuning_effort == "10 trials + defaults"
        assert resolve(names, card, ["beta1=0.8"]).tuning_effort == "by hand"
    assert resolve("stablemax", card, []).tuning_effort == "defaults"  # beside the reference


@pytest.mark.parametrize("text", ["99999999999999999999999", "-99999999999999999999999"])
def test_a_whole_number_that_no_message_carries_is_refused(text: str) -> None:
    assert "must be" in refused("el2n", [f"pilots={text}"])
    assert "lr" in refused("torch.optim:NAdam", [f"lr={text}"])


def test_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("uba", "schedule"):
        file = tmp_path / f"{name}.py"
        file.write_text("import torch\n\n\nclass Mine(torch.optim.SGD):\n    pass\n")
        assert refused(f"{file}+uba").startswith(f"The name '{name}' also stands for another part")
        resolve(str(file), CARD, [])  # alone it is nobody else's


@pytest.mark.parametrize("other", ["lion", "uba", "mezo", "stablemax"])
def test_a_part_that_a_procedure_never_asks_is_refused(other: str) -> None:
    for names in (f"gbnn+{other}", f"{other}+gbnn"):
        message = refused(names)
        assert message.startswith("'gbnn' owns the loop and has no use for the place")
        assert f"which '{other}' fills" in message
    resolve("gbnn+rs2", CARD, [])
    resolve("v-cycle+lion+uba", CARD, [])


def test_a_recipe_setting_reaches_the_part_that_takes_it_from_there() -> None:
    resolved = resolve("uba", CARD, ["recipe.warmup_fraction=0.3"])
    assert resolved.hyperparameters["uba.warmup_fraction"] == 0.3
    assert resolved.recipe.warmup_fraction == 0.3


@pytest.mark.parametrize(
    ("names", "setting"),
    [
        ("linear", "recipe.final_lr_fraction=0.5"),  # it decays to zero
        ("mezo", "recipe.warmup_fraction=0.5"),
        ("label-smoothing", "recipe.label_smoothing=0.2"),
    ],
)
def test_a_recipe_setting_out_of_force_is_refused(names: str, setting: str) -> None:
    message = refused(names, [setting])
    assert message.startswith(f"{setting.partition('=')[0]} has no effect: '{names}' fills")
