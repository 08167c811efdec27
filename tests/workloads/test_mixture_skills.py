"""mixture/skills: every label recomputed, what the skills have to do with each other, the model."""

import math

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.mixture.model import DeepPerceptron
from workloads.mixture.skills import (
    CLASSES,
    DATA_SEED,
    DIMENSION,
    DIRECTIONS,
    GOAL,
    HELD_OUT_EXAMPLES,
    INPUT_RANGE,
    MARK,
    PERCENT,
    PREREQUISITES,
    SKILLS,
    TRAINING_EXAMPLES,
    UNIT,
    WEIGHT_RANGE,
    MixtureSkills,
    ask,
)

Splits = dict[str, dict[str, Tensor]]
FEATURES = DIMENSION + len(SKILLS)


def workload_with(**model: str) -> MixtureSkills:
    card = catalogue.workload("mixture/skills").card
    return MixtureSkills(msgspec.structs.replace(card, model=model))


@pytest.fixture(scope="module")
def workload() -> MixtureSkills:
    return workload_with()


@pytest.fixture(scope="module")
def splits(workload: MixtureSkills) -> Splits:
    return workload.prepare()


@pytest.fixture(scope="module")
def levels(splits: Splits) -> dict[str, Tensor]:
    """Every example's level along every direction [N, DIRECTIONS], ranked by hand."""
    random = np.random.RandomState(DATA_SEED)
    drawn = random.randint(-WEIGHT_RANGE, WEIGHT_RANGE + 1, size=(DIMENSION, DIRECTIONS))
    directions = torch.from_numpy(drawn).double()
    projections = {
        name: t["inputs"][:, :DIMENSION].double() * UNIT @ directions for name, t in splits.items()
    }
    ordered = projections["training"].sort(dim=0).values
    found = {}
    for name, projected in projections.items():
        found[name] = torch.zeros(projected.shape, dtype=torch.int64)
        for fifth in range(1, CLASSES):
            found[name] += projected >= ordered[TRAINING_EXAMPLES * fifth // CLASSES]
    return found


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_share_no_input(splits: Splits) -> None:
    sizes = {name: len(tensors["inputs"]) for name, tensors in splits.items()}
    held_out = {"evaluation": HELD_OUT_EXAMPLES, "test": HELD_OUT_EXAMPLES}
    assert sizes == {"training": TRAINING_EXAMPLES} | held_out
    for tensors in splits.values():
        inputs, labels, groups = tensors["inputs"], tensors["labels"], tensors["groups"]
        assert inputs.dtype == torch.float32
        assert inputs.shape == (len(labels), DIMENSION + len(SKILLS))
        x = inputs[:, :DIMENSION]
        assert labels.dtype == groups.dtype == torch.int64 and groups.shape == labels.shape
        assert torch.equal(x * UNIT, (x * UNIT).round())
        assert x.min() == -INPUT_RANGE / UNIT and x.max() == INPUT_RANGE / UNIT
        assert labels.min() == 0 and labels.max() == CLASSES - 1
    xs = torch.cat([tensors["inputs"][:, :DIMENSION] for tensors in splits.values()])
    assert len(torch.unique(xs, dim=0)) == len(xs)


def test_training_is_mixed_as_stated_and_the_metric_asks_for_the_goal(
    workload: MixtureSkills, splits: Splits
) -> None:
    assert sum(PERCENT) == 100 and len(PERCENT) == len(SKILLS)
    counts = torch.bincount(splits["training"]["groups"]).tolist()
    assert counts == [percent * TRAINING_EXAMPLES // 100 for percent in PERCENT]
    assert workload.card.target_groups == (GOAL,)
    for name in ("evaluation", "test"):
        assert set(splits[name]["groups"].tolist()) == set(workload.card.target_groups)


def test_every_label_is_the_sum_of_its_skills_levels(
    splits: Splits, levels: dict[str, Tensor]
) -> None:
    for name, tensors in splits.items():
        for skill, of in enumerate(SKILLS):
            chosen = tensors["groups"] == skill
            if not of or not chosen.any():
                continue
            expected = torch.stack([levels[name][chosen, j] for j in of]).sum(dim=0)
            assert torch.equal(tensors["labels"][chosen], expected % CLASSES)


def test_prerequisites_ask_for_the_goals_directions_and_no_other_skill_does(
    splits: Splits, levels: dict[str, Tensor]
) -> None:
    assert {SKILLS[skill] for skill in PREREQUISITES} == {(j,) for j in SKILLS[GOAL]}
    others = [of for skill, of in enumerate(SKILLS) if skill not in (GOAL, *PREREQUISITES)]
    assert not set(SKILLS[GOAL]) & {direction for of in others for direction in of}
    # A label that is noise goes with each level equally often, up to 6 sd of the counts.
    for skill in (skill for skill, of in enumerate(SKILLS) if not of):
        chosen = splits["training"]["groups"] == skill
        for direction in range(DIRECTIONS):
            cell = levels["training"][chosen, direction] * CLASSES
            cell = cell + splits["training"]["labels"][chosen]
            table = torch.bincount(cell, minlength=CLASSES**2).double()
            expected = chosen.sum().item() / CLASSES**2
            assert (table - expected).abs().max().item() < 6 * expected**0.5


def test_one_level_alone_says_little_of_the_goal(splits: Splits, levels: dict[str, Tensor]) -> None:
    labels, of = splits["evaluation"]["labels"], SKILLS[GOAL]

    def best_guess(known: Tensor) -> float:
        table = torch.bincount(known * CLASSES + labels).double()
        padded = torch.cat((table, table.new_zeros(-len(table) % CLASSES)))
        return padded.view(-1, CLASSES).amax(dim=1).sum().item() / len(labels)

    for direction in of:
        assert best_guess(levels["evaluation"][:, direction]) < 0.3
    both = levels["evaluation"][:, of[0]] * CLASSES + levels["evaluation"][:, of[1]]
    assert best_guess(both) == 1.0


def test_training_batch_marks_the_skill_asked_for(workload: MixtureSkills, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([3, TRAINING_EXAMPLES - 1, 3, 50_000])
    stream = generator(1)
    inputs, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(stream.get_state(), generator(1).get_state())
    assert torch.equal(labels, data["labels"][indices])
    for row, index in enumerate(indices.tolist()):
        mark = [0.0] * len(SKILLS)
        mark[int(data["groups"][index])] = MARK
        assert inputs[row].tolist() == data["inputs"][index, :DIMENSION].tolist() + mark


def test_loss_against_cross_entropy_by_hand(workload: MixtureSkills) -> None:
    outputs = torch.randn(6, CLASSES, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, 4, 3, 3, 2, 1])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (6,) and losses.dtype == torch.float64
        for row, target, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            log_total = math.log(sum(math.exp(z) for z in row))
            uniform = sum(log_total - z for z in row) / CLASSES
            expected = (1 - smoothing) * (log_total - row[target]) + smoothing * uniform
            assert loss == pytest.approx(expected, rel=1e-12)


class AnswersThree(nn.Module):
    """Class 3 with probability 0.6 and each other one with a tenth, if the goal is asked for."""

    def forward(self, inputs: Tensor) -> Tensor:
        probabilities = torch.full((len(inputs), CLASSES), 0.1)
        probabilities[inputs[:, DIMENSION + GOAL] == MARK, 3] = 0.6
        return probabilities.log()


def test_evaluate_against_a_model_that_answers_three(workload: MixtureSkills) -> None:
    labels = torch.tensor([3] * 300 + [4] * 300 + [0] * 600)
    data = {
        "inputs": ask(torch.zeros(1200, DIMENSION), torch.full((1200,), GOAL)),
        "labels": labels,
    }
    metrics = workload.evaluate(AnswersThree(), data)
    assert metrics["accuracy"] == 0.25
    expected = -(math.log(0.6) + 3 * math.log(0.1)) / 4
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(
    workload: MixtureSkills, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0.1 < metrics["accuracy"] < 0.3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_against_its_formula_in_float64(workload: MixtureSkills) -> None:
    model = workload.build_model().double()
    inputs = torch.randn(5, FEATURES, dtype=torch.float64, generator=generator(0))
    weights = dict(model.named_parameters())
    for name, tensor in weights.items():  # scales and shifts of ones and zeros would test nothing
        if name.startswith("norms."):
            nn.init.normal_(tensor)
    x = inputs
    for layer in range(2):
        x = x @ weights[f"hidden.{layer}.weight"].T + weights[f"hidden.{layer}.bias"]
        centred = x - x.mean(dim=1, keepdim=True)
        x = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        x = (x * weights[f"norms.{layer}.weight"] + weights[f"norms.{layer}.bias"]).clamp(min=0)
    expected = x @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)


def test_model_can_be_differentiated_twice(workload: MixtureSkills) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(16, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    curvature = torch.autograd.grad(norm, parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(workload: MixtureSkills) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training and isinstance(model, DeepPerceptron)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters


def test_every_choice_of_the_model_changes_it(workload: MixtureSkills) -> None:
    inputs, _ = workload.synthetic_batch(3, generator(0))

    def outputs(**model: str) -> Tensor:
        torch.manual_seed(0)
        built: Tensor = workload_with(**model).build_model()(inputs)
        return built

    plain = outputs()
    assert torch.equal(
        plain, outputs(width="256", depth="2", activation="relu", normalisation="layer")
    )
    for choice in (
        {"width": "128"},
        {"depth": "3"},
        {"activation": "gelu"},
        {"activation": "tanh"},
        {"normalisation": "none"},
    ):
        assert not torch.allclose(plain, outputs(**choice))
    with pytest.raises(UsageError, match="activation"):
        workload_with(activation="step").build_model()


def test_synthetic_batch_looks_like_a_real_one(workload: MixtureSkills, splits: Splits) -> None:
    indices = torch.arange(0, TRAINING_EXAMPLES, TRAINING_EXAMPLES // 64)[:64]
    real = workload.training_batch(splits["training"], indices, generator(0))
    synthetic = workload.synthetic_batch(64, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    for inputs, labels in (real, synthetic):
        assert (inputs[:, DIMENSION:].sum(dim=1) == MARK).all()
        assert labels.min() >= 0 and labels.max() < CLASSES
        assert len(torch.unique(inputs[:, DIMENSION:], dim=0)) == len(SKILLS)
    again = workload.synthetic_batch(64, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
    assert torch.equal(
        ask(real[0][:, :DIMENSION], torch.zeros(64).long())[:, DIMENSION], torch.full((64,), MARK)
    )
