import json
from pathlib import Path

import pytest
from interop.algoperf_tree import write_targets

from harness.errors import UsageError
from harness.interop.algoperf.scoring import budgets_s
from harness.interop.algoperf.targets import KNOWN, fitting, read_targets, targets_named

BASES = (
    *("criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit"),
    *("librispeech_conformer", "librispeech_deepspeech", "ogbg", "wmt"),
)


def test_the_known_targets() -> None:
    older, newer = map(targets_named, KNOWN)
    assert older.base_workloads == newer.base_workloads == BASES
    assert len(older.workloads) == 8 + 24
    assert older.variants == {
        "criteo1tb_embed_init": "criteo1tb",
        "fastmri_tanh": "fastmri",
        "imagenet_resnet_large_bn_init": "imagenet_resnet",
        "librispeech_conformer_layernorm": "librispeech_conformer",
        "ogbg_model_size": "ogbg",
        "wmt_glu_tanh": "wmt",
    }
    assert newer.variants == {}
    stated = {name: target.variant_of for name, target in older.workloads.items()}
    for base in BASES:
        assert stated[base] is None
        assert list(stated.values()).count(base) == 3
        assert (
            older.workloads[base].validation_target_value
            == newer.workloads[base].validation_target_value
        )
    assert older.workloads["wmt"].goal == "maximize"
    assert older.workloads["librispeech_deepspeech"].goal == "minimize"


def test_budgets_are_larger_under_self_tuning() -> None:
    for name, factor in (("v0.5", 3), ("v0.6", 1.5)):
        targets = targets_named(name)
        external = budgets_s(targets, "algoperf/external_tuning")
        own = budgets_s(targets, "self_tuning")
        assert own == {name: factor * seconds for name, seconds in external.items()}
    assert external["fastmri"] == 4430


def test_logs_are_told_by_what_they_ran() -> None:
    assert fitting(["fastmri", "fastmri_tanh"]) == "v0.5"
    assert fitting(["fastmri", "fastmri_layernorm"]) == "v0.6"
    assert fitting(["my_own"]) is None


def test_a_variant_belongs_to_the_longest_base_or_to_the_one_that_is_stated(
    tmp_path: Path,
) -> None:
    names = ("lm", "lm_large", "lm_large_var", "x_lm")
    path = write_targets(
        tmp_path / "targets.json", dict.fromkeys(names, ("loss", 1.0)), "lm_large_var"
    )
    assert read_targets(path).variants == {"lm_large_var": "lm_large"}
    content = json.loads(path.read_text())
    content["workloads"]["lm_large_var"]["variant_of"] = "lm"
    path.write_text(json.dumps(content))
    assert read_targets(path).variants == {"lm_large_var": "lm"}


def test_a_file_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text(
        "base_workloads: [x]\nworkloads:\n  x:\n    target_metric_name: bleu\n"
        "    validation_target_value: 30\n"
    )
    assert targets_named(str(path)).workloads["x"].goal == "maximize"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_workloads": []}, "base_workloads is empty"),
        ({"base_workloads": ["z"]}, "z is to be scored and has no target"),
        ({"held_out_workloads": ["z"]}, "z is to be scored and has no target"),
        ({"held_out_workloads": ["other"]}, "other is a variant of no base workload. Add `var"),
        ({"workloads": {"x": {}}}, "field `workloads.x`"),
        ({"workloads": {"x": {"target_metric_name": "f1", "validation_target_value": 1}}}, "f1 of"),
        (
            {
                "workloads": {
                    "x": {
                        "target_metric_name": "f1",
                        "validation_target_value": 1,
                        "target_metric_goal": "up",
                    }
                }
            },
            "target_metric_goal",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_targets(tmp_path / "t.json", dict.fromkeys(("x", "other"), ("loss", 1.0)))
    change = {"base_workloads": ["x"]} | change
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=message):
        read_targets(path)


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ("[]", "a mapping")])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_targets(path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'v0.7' do not exist.*Known by name: v0\.5, v0\.6"):
        targets_named("v0.7")


def test_budgets_that_are_not_stated_are_asked_for(tmp_path: Path) -> None:
    path = write_targets(tmp_path / "t.json", {"x": ("loss", 1.0)})
    with pytest.raises(UsageError, match="no `max_runtime_s` for x"):
        budgets_s(read_targets(path), "")
