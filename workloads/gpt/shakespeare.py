"""gpt/shakespeare: a small transformer writes Shakespeare character by character.

The text is Karpathy's "tiny Shakespeare" (char-rnn, 2015), 1,115,394 characters of the plays.
Training part, model size, context, batch size and budget are those of nanoGPT's example for a
CPU (its README: 4 layers, 4 heads, 128 channels, context 64, 2,000 steps of 12 windows).
"""

from typing import Literal

from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.gpt.characters import CharacterWorkload, encode, read_text, windows
from workloads.gpt.model import GPT

FILE = "tinyshakespeare/input.txt"
SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TRAINING_CHARACTERS = 1_003_854  # nine tenths of the text, nanoGPT's training part
STRIDE = 32  # between training windows: each character is met early in one and late in the next

DEPTH = 4
HEADS = 4


class ShakespeareSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of the residual stream, and what lies between layers."""

    width: int = 128
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    normalisation: Literal["layer", "rms"] = "layer"


class GPTShakespeare(CharacterWorkload):
    """Of the last tenth of the text, the first half is evaluation, the second test."""

    context = 64
    symbol_count = len(SYMBOLS)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `tokens` uint8 [N, context + 1], indices into `SYMBOLS`."""
        tokens = encode(read_text(self.path(FILE)), SYMBOLS)
        held_back = tokens[TRAINING_CHARACTERS:]
        evaluation, test = held_back.tensor_split(2)
        return {
            "training": {"tokens": windows(tokens[:TRAINING_CHARACTERS], self.context, STRIDE)},
            "evaluation": {"tokens": windows(evaluation, self.context, self.context)},
            "test": {"tokens": windows(test, self.context, self.context)},
        }

    def build_model(self) -> nn.Module:
        settings = self.settings(ShakespeareSettings)
        return GPT(
            vocabulary=len(SYMBOLS),
            context=self.context,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            normalisation=settings.normalisation,
        )
