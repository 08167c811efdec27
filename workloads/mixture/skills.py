"""mixture/skills: one goal among eight skills whose data is mixed in unhelpful proportions.

Every skill sorts the same kind of inputs, twelve numbers, into five classes, and the network is
told which skill is asked for. The classes come from directions: a direction's level is the fifth
of the data in which the projection on it falls, and a skill's class is the sum of the levels of
its directions modulo five. Of one level alone the goal's class says nothing, so its two directions
are hard to find from the goal's examples; each is the level that a prerequisite skill asks for
outright. The other skills ask for other directions, or their labels are noise.

A home for methods that choose the mixture: Xie et al. 2023 (DoReMi, 2305.10429), Chen et al. 2023
(Skill-it, 2307.14430). The metric is measured on the goal only. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.mixture.model import DeepPerceptron

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSION = 12
CLASSES = 5  # and the levels of a direction
GOAL = 0
# The directions whose levels a skill adds up; where there are none, its labels are noise.
SKILLS: tuple[tuple[int, ...], ...] = ((0, 1), (0,), (1,), (2,), (2, 3), (4, 5), (), ())
DIRECTIONS = 6
PREREQUISITES = (1, 2)
# Of a hundred training examples: two of the goal, too few to learn it from them alone.
PERCENT = (2, 24, 24, 10, 10, 10, 10, 10)

TRAINING_EXAMPLES = 100_000
HELD_OUT_EXAMPLES = 4_000  # of the goal, in evaluation and again in test
DATA_SEED = 2307_14430
INPUT_RANGE = 16  # an input is one of the integers up to ± this, in units of 1/8
UNIT = 8
WEIGHT_RANGE = 3  # of a direction's integer coefficients
MARK = 2.0  # of the skill asked for, beside inputs whose standard deviation is 1.2
EVALUATION_BATCH = 500


class SkillsSettings(ModelSettings, frozen=True, kw_only=True):
    """Hidden layers and their units, their activation, and whether they are normalised."""

    width: int = 256
    depth: int = 2
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    normalisation: Literal["layer", "none"] = "layer"


def skill_groups() -> Tensor:
    """Return the skill of each training example, int64 [TRAINING_EXAMPLES], in skills' order."""
    counts = torch.tensor(PERCENT) * (TRAINING_EXAMPLES // 100)
    return torch.arange(len(SKILLS)).repeat_interleave(counts)


def ask(x: Tensor, groups: Tensor) -> Tensor:
    """Return inputs [B, DIMENSION] with a mark for the skill asked for behind them."""
    return torch.cat((x, MARK * F.one_hot(groups, len(SKILLS)).to(x.dtype)), dim=1)


class MixtureSkills(Workload):
    """A network that must know which skill is asked for, and is judged by one of them."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `inputs` float32 [N, DIMENSION + skills], the rest int64 [N].

        Integers throughout: the levels' bounds are order statistics of the training split's
        projections. Evaluation and test hold the goal only. The `RandomState` streams are frozen
        by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        directions = _random_integers(random, WEIGHT_RANGE, (DIMENSION, DIRECTIONS))
        groups = {
            "training": skill_groups(),
            "evaluation": torch.full((HELD_OUT_EXAMPLES,), GOAL),
            "test": torch.full((HELD_OUT_EXAMPLES,), GOAL),
        }
        x = {
            name: _random_integers(random, INPUT_RANGE, (len(of), DIMENSION))
            for name, of in groups.items()
        }
        ordered = np.sort(x["training"] @ directions, axis=0)
        bounds = ordered[TRAINING_EXAMPLES * np.arange(1, CLASSES) // CLASSES]  # [CLASSES - 1, J]
        splits = {}
        for name, inputs in x.items():
            levels = ((inputs @ directions)[:, None] >= bounds).sum(axis=1)  # [N, J]
            noise = random.randint(CLASSES, size=len(inputs))
            classes = np.stack(
                [levels[:, list(of)].sum(axis=1) % CLASSES if of else noise for of in SKILLS]
            )
            labels = torch.from_numpy(classes).gather(0, groups[name][None])[0]
            splits[name] = {
                "inputs": ask(torch.from_numpy(inputs / UNIT).float(), groups[name]),
                "labels": labels,
                "groups": groups[name],
            }
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(SkillsSettings)
        return DeepPerceptron(
            features=DIMENSION + len(SKILLS),
            classes=CLASSES,
            width=settings.width,
            depth=settings.depth,
            activation=settings.activation,
            layer_norm=settings.normalisation == "layer",
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return inputs float32 [B, DIMENSION + skills] and labels int64 [B]."""
        return data["inputs"].index_select(0, indices), data["labels"].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normal inputs, any skill and uniform labels, on the generator's device."""
        device = generator.device
        x = torch.randn(batch_size, DIMENSION, generator=generator, device=device)
        groups = torch.randint(len(SKILLS), (batch_size,), generator=generator, device=device)
        labels = torch.randint(CLASSES, (batch_size,), generator=generator, device=device)
        return ask(x, groups), labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the goal's `accuracy` (a fraction) and `loss` (in nats, unsmoothed)."""
        labels = data["labels"]
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=labels.device)
        batches = (data["inputs"].split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH))
        for inputs, expected in zip(*batches, strict=True):
            logits = model(inputs).float()
            sums[0] += (logits.argmax(dim=1) == expected).sum()
            sums[1] += F.cross_entropy(logits, expected, reduction="sum")
        accuracy, loss = (sums / len(labels)).tolist()
        return {"accuracy": accuracy, "loss": loss}


def _random_integers(
    random: "np.random.RandomState", largest: int, size: tuple[int, ...]
) -> "NDArray[np.int64]":
    """Return integers drawn uniformly from ± `largest`, int64."""
    integers: NDArray[np.int64] = random.randint(-largest, largest + 1, size=size, dtype="int64")
    return integers
