"""Connectionist temporal classification (Graves et al. 2006), differentiable as often as one likes.

`torch.nn.functional.ctc_loss` has a gradient but no second derivative, which methods that use
curvature need. Here the forward recursion is spelt out in torch's own operations, one step a
position.
"""

import torch
from torch import Tensor

IMPOSSIBLE = -1e30  # a logarithm of zero; with -inf gradients would not be numbers
NO_LABEL = -1  # fills up targets


def ctc_losses(log_probabilities: Tensor, targets: Tensor, blank: int) -> Tensor:
    """Return -log p(target), shape [B], of log-probabilities [B, T, C] and labels [B, S].

    Shorter targets end in `NO_LABEL`. Every position counts: shorter inputs end in positions
    that are surely blank.
    """
    batch, labels = targets.shape
    # Before, between and after the labels may stand blanks: states 0 … 2S.
    states = torch.full((batch, 2 * labels + 1), blank, device=targets.device)
    states[:, 1::2] = targets.clamp_min(0)
    # A blank may be left out between labels that differ.
    skippable = torch.zeros_like(states, dtype=torch.bool)
    skippable[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    bar = torch.zeros(states.shape, dtype=log_probabilities.dtype, device=targets.device)
    bar.masked_fill_(~skippable, IMPOSSIBLE)
    start = torch.full_like(bar, IMPOSSIBLE)
    start[:, :2] = 0
    wall = bar.new_full((batch, 2), IMPOSSIBLE)

    emitted = log_probabilities.gather(
        2, states[:, None].expand(-1, log_probabilities.shape[1], -1)
    )
    reached = start + emitted[:, 0]
    for step in emitted[:, 1:].unbind(dim=1):
        shifted = torch.cat((wall, reached), dim=1)
        ways = torch.stack((reached, shifted[:, 1:-1], shifted[:, :-2] + bar))
        reached = ways.logsumexp(dim=0) + step
    last = 2 * (targets != NO_LABEL).sum(dim=1, keepdim=True)
    ends = torch.cat((reached.gather(1, last), reached.gather(1, last - 1)), dim=1)
    return -ends.logsumexp(dim=1)


def collapse(labels: list[int], blank: int) -> list[int]:
    """Return what a path of labels, one a position, writes: repeats once, no blanks."""
    before = [blank, *labels]
    return [
        label
        for label, previous in zip(labels, before, strict=False)
        if label not in (blank, previous)
    ]


def edit_distance(a: list[int], b: list[int]) -> int:
    """Return the fewest insertions, deletions and substitutions that make `b` of `a`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
