"""gpt/gutenberg: a small transformer writes like novelists, character by character.

Twelve long novels of Project Gutenberg, 22 million characters: twenty times gpt/shakespeare's
text, so that a run never meets a window twice and nothing is learned by heart.
"""

from typing import Literal

from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.gpt.characters import CharacterWorkload, encode, read_text, windows
from workloads.gpt.model import GPT

TRAINING_FILE, HELD_BACK_FILE = "gutenberg/train.txt", "gutenberg/val.txt"
SYMBOLS = (
    "\n !\"#$&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz{|}"
    "£½ÀÁÆÇÈÉàáâäæçèéêëíîïñóôöùúûüýŒœηοςτϰוח"
)
# The held-back text has every novel's end after the other; windows at this distance from all
# of it are enough, and those of the test split lie halfway between evaluation's.
EVERY = 16

DEPTH = 4
HEADS = 5


class GutenbergSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of the residual stream, and what lies between layers."""

    width: int = 160
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    normalisation: Literal["layer", "rms"] = "layer"


class GPTGutenberg(CharacterWorkload):
    """Evaluation and test are windows of the last twentieth of each novel."""

    context = 64
    symbol_count = len(SYMBOLS)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `tokens` uint8 [N, context + 1], indices into `SYMBOLS`."""
        training, held_back = (
            windows(encode(read_text(self.path(file)), SYMBOLS), self.context, self.context)
            for file in (TRAINING_FILE, HELD_BACK_FILE)
        )
        return {
            "training": {"tokens": training},
            "evaluation": {"tokens": held_back[::EVERY].contiguous()},
            "test": {"tokens": held_back[EVERY // 2 :: EVERY].contiguous()},
        }

    def build_model(self) -> nn.Module:
        settings = self.settings(GutenbergSettings)
        return GPT(
            vocabulary=len(SYMBOLS),
            context=self.context,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            normalisation=settings.normalisation,
        )
