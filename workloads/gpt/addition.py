"""gpt/addition: a small transformer learns to add from sums such as $0012+0345=75300$.

Lee et al. 2024, "Teaching Arithmetic to Small Transformers" (2307.03381): the digits of the
answer stand in reverse between delimiters, so that each depends on those already written and
carries flow to the right; easy sums are drawn more often than chance would. Operands are
padded with zeros, so that every position has one meaning. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.gpt.model import GPT

DIGITS = 4  # of a padded operand
QUESTION = 2 * DIGITS + 3  # tokens of `$0012+0345=`
ANSWER = DIGITS + 2  # tokens of `75300$`
# Tokens read; the last one of a sum is predicted only. On a CPU with 16 float32 lanes a
# softmax over 16 positions takes a tenth of the time of one over 13, 14 or 15.
CONTEXT = QUESTION + ANSWER - 1

SYMBOLS = "0123456789+=$"  # a token is an index into them; a digit is its own token
PLUS, EQUALS, DELIMITER = (SYMBOLS.index(symbol) for symbol in "+=$")
NO_LOSS = -100  # a target that does not count

DEPTH = 2
HEADS = 8

TRAINING_EXAMPLES = 50_000
HELD_OUT_EXAMPLES = 2_000  # in evaluation and again in test
DATA_SEED = 2307_03381
DRAWS = 64_000  # enough that this many different sums remain
# A digit is drawn below this and is zero where it is no digit: 40 % zeros in every column.
# Of uniform digits nothing can be told from one alone, and runs wait for the step to the
# second one for a time that differs by half from seed to seed.
DIGIT_DRAWS = 15
EVALUATION_BATCH = 128


def write_sums(a: Tensor, b: Tensor) -> Tensor:
    """Return the sums of `a` and `b` (int64 [N], below 10^DIGITS) as tokens [N, CONTEXT + 1]."""
    powers = 10 ** torch.arange(DIGITS + 1)

    def symbol(token: int) -> Tensor:
        return torch.full((len(a), 1), token)

    def operand(number: Tensor) -> Tensor:
        return number[:, None] // powers[:DIGITS].flip(0) % 10

    answer = (a + b)[:, None] // powers % 10
    columns = (symbol(DELIMITER), operand(a), symbol(PLUS), operand(b), symbol(EQUALS), answer)
    return torch.cat((*columns, symbol(DELIMITER)), dim=1)


def count_carries(a: Tensor, b: Tensor) -> Tensor:
    """Return the number of columns in which `a` + `b` carries, int64 [N]."""
    powers = 10 ** torch.arange(1, DIGITS + 1)
    return (a[:, None] % powers + b[:, None] % powers >= powers).sum(dim=1)


def shift(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [B, CONTEXT] of written sums [B, CONTEXT + 1].

    A target is the token that follows, `NO_LOSS` where that is part of the question.
    """
    targets = tokens[:, 1:].clone()
    targets[:, : QUESTION - 1] = NO_LOSS
    return tokens[:, :-1], targets


class GPTSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of the residual stream, and what lies between layers."""

    width: int = 96
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    normalisation: Literal["layer", "rms"] = "layer"


class GPTAddition(Workload):
    """Trains on the answers' tokens only; accuracy is the share of answers right throughout."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `tokens` int64 [N, CONTEXT + 1] and `groups` int64 [N].

        The group is the number of carries. A sum drawn again is dropped, so no pair of
        operands stands in two splits. The `RandomState` streams are frozen by NumPy (NEP 19),
        `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        digits = random.randint(0, DIGIT_DRAWS, size=(DRAWS, 2, DIGITS))
        digits[digits >= 10] = 0
        operands = digits @ 10 ** np.arange(DIGITS)  # [DRAWS, 2]
        _, first = np.unique(operands, axis=0, return_index=True)
        # The easy sums are used up by the earlier draws: shuffled before they are split.
        kept = np.sort(first)[: TRAINING_EXAMPLES + 2 * HELD_OUT_EXAMPLES]
        a, b = torch.from_numpy(operands[random.permutation(kept)]).T
        sizes = (TRAINING_EXAMPLES, HELD_OUT_EXAMPLES, HELD_OUT_EXAMPLES)
        splits = zip(write_sums(a, b).split(sizes), count_carries(a, b).split(sizes), strict=True)
        return {
            name: {"tokens": tokens.contiguous(), "groups": groups.contiguous()}
            for name, (tokens, groups) in zip(
                ("training", "evaluation", "test"), splits, strict=True
            )
        }

    def build_model(self) -> nn.Module:
        settings = self.settings(GPTSettings)
        return GPT(
            vocabulary=len(SYMBOLS),
            context=CONTEXT,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            normalisation=settings.normalisation,
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return tokens and the tokens that follow, int64 [B, CONTEXT] both."""
        return shift(data["tokens"].index_select(0, indices))

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform tokens with the targets of a sum, on the generator's device."""
        shape = (batch_size, CONTEXT + 1)
        device = generator.device
        return shift(torch.randint(len(SYMBOLS), shape, generator=generator, device=device))

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy of each example's counted tokens in nats, shape [B]."""
        losses = F.cross_entropy(
            outputs.flatten(0, 1),
            targets.flatten(),
            ignore_index=NO_LOSS,
            reduction="none",
            label_smoothing=label_smoothing,
        ).view_as(targets)
        return losses.sum(dim=1) / (targets != NO_LOSS).sum(dim=1)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (in nats a token, unsmoothed).

        An answer counts if every token of it is the likeliest one after the true tokens
        before it. That is just when greedy decoding writes it: up to the first difference
        both read the same prefix, and at a first difference both have failed.
        """
        tokens = data["tokens"]
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=tokens.device)
        for batch in torch.split(tokens, EVALUATION_BATCH):
            inputs, targets = shift(batch)
            logits = model(inputs).float()
            right = (logits.argmax(dim=-1) == targets) | (targets == NO_LOSS)
            sums[0] += right.all(dim=1).sum()
            sums[1] += self.per_example_loss(logits, targets, label_smoothing=0.0).sum()
        accuracy, loss = (sums / len(tokens)).tolist()
        return {"accuracy": accuracy, "loss": loss}
