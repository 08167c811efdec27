"""Language models of characters: what the workloads on texts share.

A text is cut into windows, each an example: the model reads `context` characters and predicts
at every position the one that follows. Held-back windows stand side by side, so that each
character counts once; what stands before a window is not read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.workload import FileWorkload

EVALUATION_BATCH = 32  # windows; more are slower on a CPU, whose caches their scores leave


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text with its line ends as they are.

    Raises:
        ValueError: it is no UTF-8.
    """
    return path.read_bytes().decode("utf-8")


def encode(text: str, symbols: str) -> Tensor:
    """Return the characters as their indices in `symbols`, uint8 [len(text)].

    Raises:
        ValueError: a character is none of `symbols`, or they are more than 256.
    """
    import numpy as np

    # A table over code points: millions of characters in milliseconds.
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    known = np.array([ord(symbol) for symbol in symbols], dtype=np.uint32)
    table = np.full(max(codes.max(initial=0), known.max()) + 1, -1, dtype=np.int16)
    table[known] = np.arange(len(symbols))
    indices = table[codes]
    if len(symbols) > 256 or (indices < 0).any():
        unknown = sorted(set(text) - set(symbols))
        raise ValueError(f"{len(symbols)} symbols are too many, or these are missing: {unknown}")
    return torch.from_numpy(indices.astype(np.uint8))


def windows(tokens: Tensor, context: int, stride: int) -> Tensor:
    """Return the windows of `context` + 1 tokens that begin every `stride`, [N, context + 1]."""
    return tokens.unfold(0, context + 1, stride).contiguous()


class CharacterWorkload(FileWorkload):
    """Trains on every position; `loss` is in nats a character."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    context: ClassVar[int]  # characters read
    symbol_count: ClassVar[int]

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return characters and the characters that follow, int64 [B, context] both."""
        tokens = data["tokens"].index_select(0, indices).long()
        return tokens[:, :-1], tokens[:, 1:]

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform characters, on the generator's device."""
        shape = (batch_size, self.context + 1)
        device = generator.device
        tokens = torch.randint(self.symbol_count, shape, generator=generator, device=device)
        return tokens[:, :-1], tokens[:, 1:]

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return each window's mean cross-entropy in nats a character, shape [B]."""
        losses = F.cross_entropy(
            outputs.flatten(0, 1),
            targets.flatten(),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return losses.view_as(targets).mean(dim=1)

    def evaluate(self, model: torch.nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `loss` (nats a character, unsmoothed) and `accuracy` (of the likeliest one)."""
        tokens = data["tokens"]
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=tokens.device)
        for batch in torch.split(tokens.long(), EVALUATION_BATCH):
            inputs, targets = batch[:, :-1], batch[:, 1:]
            logits = model(inputs).float()
            sums[0] += self.per_example_loss(logits, targets, label_smoothing=0.0).double().sum()
            sums[1] += (logits.argmax(dim=-1) == targets).double().mean(dim=1).sum()
        loss, accuracy = (sums / len(tokens)).tolist()
        return {"loss": loss, "accuracy": accuracy}
