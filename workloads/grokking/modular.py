"""grokking/modular: addition modulo 113, memorised long before it is understood.

Power et al. 2022, "Grokking" (2201.02177): trained with weight decay on a part of all pairs, a
network knows its training pairs by heart while others are still at chance, and generalises later.
The modulus and the sizes are those of Nanda et al. 2023 (2301.05217), with a sum of embeddings in
place of attention. A home for methods that shorten the wait, such as StableMax and ⊥Grad of
Prieto et al. 2025 (2501.04697). Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.grokking.model import PairPerceptron

MODULUS = 113  # a prime; the residues are the tokens and the classes
# Of all 6,441 pairs a ≤ b; the mirrored ones follow their own.
PAIRS = {"training": 2254, "evaluation": 1500, "test": 1500}  # in training 35 %
DATA_SEED = 2301_05217
EVALUATION_BATCH = 500


class GrokkingSettings(ModelSettings, frozen=True, kw_only=True):
    """Sizes, the activation, and whether both numbers are looked up in one table."""

    embedding: int = 128
    width: int = 512
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    tables: Literal["separate", "shared"] = "separate"


class GrokkingModular(Workload):
    """Accuracy is counted on pairs that stand in the training split in neither order."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `pairs` int64 [N, 2] and `labels` int64 [N].

        A pair and its mirror image stand in one split, since addition commutes. The
        `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        ordered = torch.combinations(torch.arange(MODULUS), with_replacement=True)  # a ≤ b
        drawn = np.random.RandomState(DATA_SEED).permutation(len(ordered))
        parts = ordered[torch.from_numpy(drawn)][: sum(PAIRS.values())].split(list(PAIRS.values()))
        splits = {}
        for name, part in zip(PAIRS, parts, strict=True):
            different = part[:, 0] != part[:, 1]
            pairs = torch.cat((part, part[different].flip(1)))
            splits[name] = {"pairs": pairs, "labels": pairs.sum(dim=1) % MODULUS}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(GrokkingSettings)
        return PairPerceptron(
            tokens=MODULUS,
            embedding=settings.embedding,
            width=settings.width,
            activation=settings.activation,
            shared=settings.tables == "shared",
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return pairs int64 [B, 2] and their sums modulo MODULUS, int64 [B]."""
        return data["pairs"].index_select(0, indices), data["labels"].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform pairs with labels that have nothing to do with them."""
        device = generator.device
        pairs = torch.randint(MODULUS, (batch_size, 2), generator=generator, device=device)
        labels = torch.randint(MODULUS, (batch_size,), generator=generator, device=device)
        return pairs, labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (in nats, unsmoothed)."""
        labels = data["labels"]
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=labels.device)
        batches = zip(
            data["pairs"].split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True
        )
        for pairs, expected in batches:
            logits = model(pairs).float()
            sums[0] += (logits.argmax(dim=1) == expected).sum()
            sums[1] += F.cross_entropy(logits, expected, reduction="sum")
        accuracy, loss = (sums / len(labels)).tolist()
        return {"accuracy": accuracy, "loss": loss}
