"""A small conformer (Gulati et al. 2020, 2005.08100): attention and convolution in one block.

A block is half a perceptron, self-attention, a convolution module and the other half. Of the
paper's it leaves out dropout and relative positions (where a sound stands, convolutions tell);
the convolution module normalises each position by itself, so that padding does not count.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.activations import activation_function

HEADS = 4
KERNEL = 9  # positions of a depthwise convolution
EXPANSION = 4
SUBSAMPLING = 4  # frames for each position
SURE = 1e4  # the distance of logits that leave no doubt


class ConformerSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels, activation, and whether blocks attend, convolve or do both."""

    width: int = 64
    activation: Literal["silu", "gelu", "relu"] = "silu"
    mixing: Literal["both", "attention", "convolution"] = "both"


class FeedForward(nn.Module):
    """Normalise, widen, activate, narrow: [B, T, C] → [B, T, C]."""

    def __init__(self, settings: ConformerSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.widen = nn.Linear(settings.width, EXPANSION * settings.width)
        self.narrow = nn.Linear(EXPANSION * settings.width, settings.width)
        self.activation = activation_function(settings.activation)

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.narrow(self.activation(self.widen(self.norm(x))))
        return narrowed


class SelfAttention(nn.Module):
    """Each position attends to all that are `present` (bool [B, T]): [B, T, C] → [B, T, C]."""

    def __init__(self, settings: ConformerSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.qkv = nn.Linear(settings.width, 3 * settings.width, bias=False)
        self.projection = nn.Linear(settings.width, settings.width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm(x)).view(batch, length, 3, HEADS, width // HEADS)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # [B, H, T, C/H] each
        # Spelt out: torch's fused kernels cannot be differentiated twice.
        scores = q @ k.mT * (width // HEADS) ** -0.5
        weights = scores.masked_fill(~present[:, None, None], -torch.inf).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        projected: Tensor = self.projection(mixed)
        return projected


class Convolution(nn.Module):
    """A gated pointwise, a depthwise and a pointwise convolution: [B, T, C] → [B, T, C]."""

    def __init__(self, settings: ConformerSettings) -> None:
        super().__init__()
        width = settings.width
        self.norm1 = nn.LayerNorm(width)
        self.gated = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm2 = nn.LayerNorm(width)
        self.pointwise = nn.Linear(width, width)
        self.activation = activation_function(settings.activation)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        gated = nn.functional.glu(self.gated(self.norm1(x)), dim=2) * present[:, :, None]
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        written: Tensor = self.pointwise(self.activation(self.norm2(mixed)))
        return written


class Block(nn.Module):
    """A conformer block; the halves of the perceptron count half."""

    def __init__(self, settings: ConformerSettings) -> None:
        super().__init__()
        self.before = FeedForward(settings)
        self.attention = SelfAttention(settings) if settings.mixing != "convolution" else None
        self.convolution = Convolution(settings) if settings.mixing != "attention" else None
        self.after = FeedForward(settings)
        self.norm = nn.LayerNorm(settings.width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        x = x + self.before(x) / 2
        if self.attention is not None:
            x = x + self.attention(x, present)
        if self.convolution is not None:
            x = x + self.convolution(x, present)
        normalised: Tensor = self.norm(x + self.after(x) / 2)
        return normalised


class Conformer(nn.Module):
    """Frames [B, T, bands] → logits [B, T/4, labels + 1], the last of them the blank's.

    A frame whose first band is exactly 0 is padding. Positions of padding alone are surely
    blank, and no other position hears of them.
    """

    def __init__(self, *, bands: int, labels: int, depth: int, settings: ConformerSettings) -> None:
        super().__init__()
        width = settings.width
        self.activation = activation_function(settings.activation)
        self.subsample1 = nn.Conv1d(bands, width, 5, stride=2, padding=2)
        self.subsample2 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(depth))
        self.head = nn.Linear(width, labels + 1)

    def forward(self, frames: Tensor) -> Tensor:
        heard = frames[:, :, 0] != 0
        x = self.activation(self.subsample1(frames.transpose(1, 2)))
        x = self.activation(self.subsample2(x * heard[:, None, ::2]))
        present = heard[:, ::SUBSAMPLING]
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, present)
        logits: Tensor = self.head(x)
        silence = torch.full_like(logits[0, 0], -SURE)
        silence[-1] = 0
        return torch.where(present[:, :, None], logits, silence)
