"""MeZO: two forward passes and a random direction that is never stored.

Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", NeurIPS,
arXiv 2305.17333, Algorithm 1. With z ~ N(0, I) drawn from the step's seed:

    g = (L(θ + ε z) - L(θ - ε z)) / 2ε
    θ ← θ - lr (g z + wd θ)

θ moves in place: + ε z, - 2ε z, then + ε z together with the update, which needs three draws of
the same z where the authors' code takes four. No gradient buffer exists, and of z one block: 1/32
of the parameters, so that a step takes little more memory than inference. g stays on the device:
nothing is read back.

Defaults ε = 1e-3, lr = 1e-6 (the paper: 1e-7 to 1e-6 for models of 350M to 66B parameters; small
models take far more), weight decay 0. It is made for fine-tuning: from scratch the direction is
one of too many. The authors evaluate L without dropout; here both passes see the same dropout
mask. Batch-norm statistics are those of the first pass, at θ + ε z. Half-precision weights get
float32 draws, but ε z may still be lost in their rounding.

The learning rate is constant, as in the authors' scripts: a decay would need a horizon, and how
many more steps than backpropagation the method takes is what a race is to show.

The generator is the optimizer's own, seeded once from torch's global one and never the other way
round. `seed` and `step` stand in the parameter groups, so that a state dict resumes the sequence.
`foreach=True` works on all the tensors of a block at once, `foreach=False` on one at a time; both
draw the same z and agree to rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from harness.session import Factors, Schedule

# Elements of z that exist at a time: a share of the parameters, within limits. The lower one
# keeps a small model from falling into kernels of a few elements; the upper one, on a CPU, keeps
# a block in the cache between its draw and its use.
BLOCK_SHARE = 32
SMALLEST_BLOCK = 2**10
LARGEST_CPU_BLOCK = 2**15


class Block(NamedTuple):
    """Pieces of parameters that get their part of z from one draw."""

    group: dict[str, Any]
    thetas: list[Tensor]  # flat views
    z: Tensor  # [n], in memory that all blocks share
    parts: list[Tensor]  # z, cut to the pieces' lengths


class MeZO(torch.optim.Optimizer):
    """MeZO. `lr` and `weight_decay` may differ by group and change by step; `eps` is one for all.

    Raises:
        ValueError: a hyperparameter, of the constructor or of a group, is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-6,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        foreach: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "seed": int(torch.randint(2**62, ())),
            "step": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set is the constructor's."""
        settings = {**self.defaults, **param_group}
        for name in ("lr", "weight_decay", "eps"):
            value = settings[name]
            # A tensor would have to be read back from the device at every step.
            if isinstance(value, Tensor) or not 0 <= value < math.inf:
                raise ValueError(f"MeZO: {name} must be a number in [0, inf), not {value!r}")
        if settings["eps"] == 0 or settings["eps"] != self.defaults["eps"]:
            raise ValueError(
                f"MeZO: eps must be above 0 and the same in every group, not {settings['eps']!r}"
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float] | None = None) -> Tensor | float:  # type: ignore[override]
        """Take a step; return the first of the two losses, at θ + ε z.

        Args:
            closure: returns the loss of the same batch under the same randomness each time; it
                runs without gradients.

        Raises:
            RuntimeError: there is no closure.
        """
        if closure is None:
            raise RuntimeError("MeZO: step needs a closure that returns the loss")
        eps: float = self.param_groups[0]["eps"]
        blocks, generators = self._blocks()
        for block in self._drawn(blocks, generators):
            _add(block, eps)
        loss = closure()
        for block in self._drawn(blocks, generators):
            _add(block, -2 * eps)
        slope = (loss - closure()) / (2 * eps)
        for block in self._drawn(blocks, generators):
            _add(block, eps)  # back at the start of the step
            lr, wd = block.group["lr"], block.group["weight_decay"]
            if wd != 0:
                _scale(block, 1 - lr * wd)
            block.z.mul_(slope)
            _add(block, -lr)
        for group in self.param_groups:
            group["step"] += 1
        return loss

    def _drawn(self, blocks: list[Block], generators: Iterable[torch.Generator]) -> Iterator[Block]:
        """Yield the blocks, with the step's z in each until the next one is drawn."""
        first = self.param_groups[0]
        by_device = {g.device: g.manual_seed(first["seed"] + first["step"]) for g in generators}
        for block in blocks:
            block.z.normal_(generator=by_device[block.z.device])
            yield block

    def _blocks(self) -> tuple[list[Block], list[torch.Generator]]:
        """Return the parameters in blocks of views, and a generator for each device."""
        total = sum(p.numel() for group in self.param_groups for p in group["params"])
        length = max(SMALLEST_BLOCK, total // BLOCK_SHARE)
        buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        blocks = []
        for group in self.param_groups:
            kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
            for p in group["params"]:
                kinds.setdefault((p.device, p.dtype), []).append(p)
            for (device, dtype), thetas in kinds.items():
                kind = device, torch.float32 if dtype.itemsize < 4 else dtype
                if kind not in buffers:
                    size = min(length, total)
                    if device.type == "cpu":
                        size = min(size, LARGEST_CPU_BLOCK)
                    buffers[kind] = torch.empty(size, device=device, dtype=kind[1])
                z = buffers[kind]
                for pieces in _cut(thetas, z.numel()):
                    sizes = [piece.numel() for piece in pieces]
                    part = z[: sum(sizes)]
                    blocks.append(Block(group, pieces, part, list(part.split(sizes))))
        return blocks, [torch.Generator(device) for device in {d for d, _ in buffers}]


def _cut(thetas: list[Tensor], length: int) -> Iterator[list[Tensor]]:
    """Yield flat views that cover the parameters, `length` elements at a time."""
    pieces: list[Tensor] = []
    room = length
    for view in (view for theta in thetas for view in _flat(theta)):
        start, size = 0, view.numel()
        while start < size:
            piece = view[start : start + room] if start > 0 or size > room else view
            pieces.append(piece)
            start += piece.numel()
            room -= piece.numel()
            if room == 0:
                yield pieces
                pieces, room = [], length
    if pieces:
        yield pieces


def _flat(theta: Tensor) -> Iterator[Tensor]:
    """Yield views [n] that cover a parameter: one, unless there are gaps in its memory."""
    strides = theta.stride()
    outermost_first = sorted(range(theta.ndim), key=lambda i: strides[i], reverse=True)
    theta = theta.permute(outermost_first)
    if theta.is_contiguous():
        yield theta.view(-1)
    elif theta.ndim == 1:
        yield theta
    else:
        for row in theta:
            yield from _flat(row)


def _add(block: Block, scale: float) -> None:
    if block.group["foreach"]:
        torch._foreach_add_(block.thetas, block.parts, alpha=scale)
        return
    for theta, z in zip(block.thetas, block.parts, strict=True):
        theta.add_(z, alpha=scale)


def _scale(block: Block, factor: float) -> None:
    if block.group["foreach"]:
        torch._foreach_mul_(block.thetas, factor)
        return
    for theta in block.thetas:
        theta.mul_(factor)


class Constant(Schedule):
    """The learning rate as it is, without warm-up or decay."""

    def __call__(self, progress: float) -> Factors:  # noqa: ARG002 - it is constant
        return Factors()
