"""A small vision transformer: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".

arXiv 2010.11929. Patches of the image are tokens of an encoder with pre-norm blocks. Of small
models' usual simplifications it takes: no biases inside the blocks, no dropout, the mean of all
tokens in place of a class token (Zhai et al. 2022, "Scaling Vision Transformers", 2106.04560).
"""

import torch
from torch import Tensor, nn

from workloads.activations import activation_function

POSITION_STD = 0.2  # beside patch embeddings whose entries are of order one


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer without bias whose outputs start with the variance of its inputs."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def patches(images: Tensor, size: int) -> Tensor:
    """Cut images [B, C, H, W] into patches [B, HW/size², C size²], row by row."""
    batch, channels, height, width = images.shape
    rows, columns = height // size, width // size
    cut = images.view(batch, channels, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * size * size)


class SelfAttention(nn.Module):
    """Each token attends to all: [B, T, C] → [B, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.projection = linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # [B, H, T, C/H] each
        # Spelt out: torch's fused kernels cannot be differentiated twice, which methods that
        # use curvature need.
        scores = q @ k.mT * (width // self.heads) ** -0.5
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
        projected: Tensor = self.projection(mixed)
        return projected


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): [B, T, C] → [B, T, C]."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = linear(width, 4 * width)
        self.contract = linear(4 * width, width)
        self.activation = activation_function(activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        mixed: Tensor = self.contract(self.activation(self.expand(self.norm2(x))))
        return x + mixed


class VisionTransformer(nn.Module):
    """Images [B, in_channels, image_size, image_size] → logits [B, classes].

    `pooling` says what the head reads: `mean` of all tokens, or the `token` of its own that
    the original prepends. The layers that write to the residual stream start smaller, by
    √(2 depth), as in GPT-2.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        in_channels: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        activation: str = "gelu",
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        sizes = (image_size, patch_size, in_channels, classes, width, depth, heads)
        if min(sizes) < 1 or image_size % patch_size or width % heads:
            raise ValueError(
                "every size must be positive, image_size a multiple of patch_size and width one "
                f"of heads; got {image_size=}, {patch_size=}, {in_channels=}, {classes=}, "
                f"{width=}, {depth=}, {heads=}"
            )
        self.patch_size = patch_size
        self.patch = linear(in_channels * patch_size**2, width)
        self.class_token = nn.Embedding(1, width) if pooling == "token" else None
        length = (image_size // patch_size) ** 2 + (pooling == "token")
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, activation) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for embedding in (self.positions, self.class_token):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=POSITION_STD)
        with torch.no_grad():
            for name, weight in self.blocks.named_parameters():
                if name.endswith(("projection.weight", "contract.weight")):
                    weight.div_((2 * depth) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(patches(images, self.patch_size))
        if self.class_token is not None:
            x = torch.cat((self.class_token.weight.expand(len(x), 1, -1), x), dim=1)
        x = self.norm(self.blocks(x + self.positions.weight))
        pooled = x.mean(dim=1) if self.class_token is None else x[:, 0]
        logits: Tensor = self.head(pooled)
        return logits
