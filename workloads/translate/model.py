"""A small encoder–decoder transformer (Vaswani et al. 2017, 1706.03762) with pre-norm blocks.

Source and target share one vocabulary and its embedding; the head is a matrix of its own, so
that every parameter has one role. No biases, no dropout. Attention is spelt out: torch's fused
kernels cannot be differentiated twice.
"""

import torch
from torch import Tensor, nn

from workloads.activations import activation_function
from workloads.gpt.model import EMBEDDING_STD, NORMALISATIONS, linear

PAD, BEGIN, END, UNKNOWN = range(4)  # the first tokens of a vocabulary

KeysValues = tuple[Tensor, Tensor]  # [B, H, S, C/H] each


class Attention(nn.Module):
    """Positions of x attend to keys and values: [B, T, C] → [B, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(width, width)
        self.key_value = linear(width, 2 * width)
        self.projection = linear(width, width)

    def keys_values(self, x: Tensor) -> KeysValues:
        """Return what others may attend to at the positions of x [B, S, C]."""
        keys, values = self.key_value(x).chunk(2, dim=2)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, source: KeysValues, hidden: Tensor | None) -> Tensor:
        """`hidden` marks what must not be seen; it broadcasts to [B, H, T, S]."""
        keys, values = source
        scores = self._split(self.query(x)) @ keys.mT * (x.shape[2] // self.heads) ** -0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        mixed = (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        projected: Tensor = self.projection(mixed)
        return projected

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Each position by itself, four times as wide within: [B, T, C] → [B, T, C]."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        self.expand = linear(width, 4 * width)
        self.contract = linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.contract(self.activation(self.expand(x)))
        return mixed


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): [B, S, C] → [B, S, C]."""

    def __init__(self, width: int, heads: int, activation: str, normalisation: str) -> None:
        super().__init__()
        norm = NORMALISATIONS[normalisation]
        self.norm1 = norm(width)
        self.attention = Attention(width, heads)
        self.norm2 = norm(width)
        self.feed_forward = FeedForward(width, activation)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, self.attention.keys_values(normed), padding)
        mixed: Tensor = self.feed_forward(self.norm2(x))
        return x + mixed


class DecoderBlock(nn.Module):
    """As the encoder's, with attention to the encoder's output between the two parts."""

    def __init__(self, width: int, heads: int, activation: str, normalisation: str) -> None:
        super().__init__()
        norm = NORMALISATIONS[normalisation]
        self.norm1 = norm(width)
        self.attention = Attention(width, heads)
        self.norm2 = norm(width)
        self.cross = Attention(width, heads)
        self.norm3 = norm(width)
        self.feed_forward = FeedForward(width, activation)

    def forward(
        self,
        x: Tensor,
        memory: KeysValues,
        padding: Tensor,
        later: Tensor | None = None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Return the output and this block's own keys and values, `past` ones first."""
        normed = self.norm1(x)
        own = self.attention.keys_values(normed)
        if past is not None:
            own = torch.cat((past[0], own[0]), dim=2), torch.cat((past[1], own[1]), dim=2)
        x = x + self.attention(normed, own, later)
        x = x + self.cross(self.norm2(x), memory, padding)
        mixed: Tensor = self.feed_forward(self.norm3(x))
        return x + mixed, own


class Translator(nn.Module):
    """Tokens [B, 2, T], sources above decoder inputs → logits [B, T, vocabulary].

    A source ends in `PAD`s; a decoder input begins with `BEGIN` and the logits are those of the
    tokens that follow.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        activation: str = "gelu",
        normalisation: str = "layer",
    ) -> None:
        super().__init__()
        if min(vocabulary, length, width, depth, heads) < 1 or width % heads:
            raise ValueError(
                "every size must be positive and width a multiple of heads; got "
                f"{vocabulary=}, {length=}, {width=}, {depth=}, {heads=}"
            )
        norm = NORMALISATIONS[normalisation]
        shape = (width, heads, activation, normalisation)
        self.tokens = nn.Embedding(vocabulary, width)
        self.source_positions = nn.Embedding(length, width)
        self.target_positions = nn.Embedding(length, width)
        self.encoder = nn.ModuleList(EncoderBlock(*shape) for _ in range(depth))
        self.encoder_norm = norm(width)
        self.decoder = nn.ModuleList(DecoderBlock(*shape) for _ in range(depth))
        self.norm = norm(width)
        self.head = linear(width, vocabulary)
        for embedding in (self.tokens, self.source_positions, self.target_positions):
            nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
        # What writes to a residual stream starts smaller, by the root of how many do.
        with torch.no_grad():
            for blocks, writers in ((self.encoder, 2 * depth), (self.decoder, 3 * depth)):
                for name, weight in blocks.named_parameters():
                    if name.endswith(("projection.weight", "contract.weight")):
                        weight.div_(writers**0.5)

    def encode(self, source: Tensor) -> tuple[list[KeysValues], Tensor]:
        """Return each decoder block's keys and values of the sources [B, S], and their padding."""
        padding = (source == PAD)[:, None, None]  # [B, 1, 1, S]
        steps = torch.arange(source.shape[1], device=source.device)
        x = self.tokens(source) + self.source_positions(steps)
        for block in self.encoder:
            x = block(x, padding)
        x = self.encoder_norm(x)
        memories = []
        for block in self.decoder:
            assert isinstance(block, DecoderBlock)
            memories.append(block.cross.keys_values(x))
        return memories, padding

    def forward(self, inputs: Tensor) -> Tensor:
        source, target = inputs.unbind(1)
        memories, padding = self.encode(source)
        steps = torch.arange(target.shape[1], device=target.device)
        later = steps > steps[:, None]  # [T, T]: row t marks what position t must not see
        x = self.tokens(target) + self.target_positions(steps)
        for block, memory in zip(self.decoder, memories, strict=True):
            x, _ = block(x, memory, padding, later)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def translate(self, source: Tensor, length: int) -> Tensor:
        """Return greedy translations of the sources [B, S], int64 [B, ≤ length].

        Token by token, the keys and values of earlier ones kept. After `END` stand `PAD`s.
        """
        memories, padding = self.encode(source)
        pasts: list[KeysValues | None] = [None] * len(memories)
        token = torch.full_like(source[:, 0], BEGIN)
        ended = torch.zeros_like(token, dtype=torch.bool)
        written = []
        for step in torch.arange(length, device=source.device):
            x = (self.tokens(token) + self.target_positions(step))[:, None]
            for i, (block, memory) in enumerate(zip(self.decoder, memories, strict=True)):
                x, pasts[i] = block(x, memory, padding, past=pasts[i])
            likeliest = self.head(self.norm(x[:, 0])).argmax(dim=1)
            token = likeliest.masked_fill(ended, PAD)
            written.append(token)
            ended = ended | (token == END)
            if ended.all():
                break
        return torch.stack(written, dim=1)
