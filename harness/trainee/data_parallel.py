"""Data-parallel training in torch.distributed: gradients averaged, values shared, ranks compared.

Backpropagation goes through torch's own DistributedDataParallel, which averages gradients in
buckets while the backward pass goes on. What is small and on the processor (counts, flags) goes
over gloo, which needs no device; on GPUs the rest goes over NCCL.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.counters import Counters
from harness.session.randomness import generator_states, set_generator_states
from harness.session.ranks import Ranks
from harness.trainee.rank_processes import LOCALHOST, RankProcess
from harness.trainee.submission_loading import DisqualifiedError

# Silence is the referee's to judge, which knows how long a step may take.
NO_TIMEOUT = timedelta(days=30)
# Of the largest weight of a tensor. Ranks that step alike differ by rounding at most.
WEIGHTS_TOLERANCE = 1e-4
# Batch norm's statistics are those of a rank's part. torch 2.13 renamed the argument.
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error only says that another rank is gone."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


class TorchRanks(Ranks):
    """The process group of a run.

    Args:
        process: which rank this is.
        device: where it trains.
        counters: the shared counters.
    """

    def __init__(self, process: RankProcess, device: torch.device, counters: Counters) -> None:
        self.rank = process.rank
        self.count = process.count
        self._device = device
        self._counters = counters
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        store = dist.TCPStore(  # type: ignore[attr-defined]
            LOCALHOST,
            process.port,
            process.count,
            is_master=process.rank == 0,
            timeout=NO_TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=process.listener,
        )
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=process.rank,
            world_size=process.count,
            timeout=NO_TIMEOUT,
            device_id=device if on_gpu else None,
        )
        self._warm_up()

    def _warm_up(self) -> None:
        """Connect the ranks and load what a first reduction loads, off the clock."""
        # Kept until after the backward pass: without it nothing would be reduced.
        scratch = self.reducing(nn.Linear(1, 1, device=self._device))
        scratch(torch.ones(1, 1, device=self._device)).sum().backward()
        self.at_boundary(0, False, 0)

    def close(self) -> None:
        """Leave the group; not collective."""
        dist.destroy_process_group()

    def advance(self) -> None:
        self._counters.advance(self.rank)

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        # Drawn from the common state, so that putting that back replays this, too.
        seed = int(torch.randint(2**62, (self.count,))[self.rank])
        common = generator_states(self._device)
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.default_generators[self._device.index].manual_seed(seed)
        try:
            yield
        finally:
            set_generator_states(self._device, common)

    def gathered(self, part: Tensor, examples: int) -> Tensor:
        longest = -(-examples // self.count)
        padded = part.new_zeros(longest, *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        sizes = [
            (rank + 1) * examples // self.count - rank * examples // self.count
            for rank in range(self.count)
        ]
        return torch.cat([own[:size] for own, size in zip(parts, sizes, strict=True)])

    def mean(self, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / self.count

    def any(self, flag: bool) -> bool:
        return self.total(int(flag)) > 0

    def total(self, number: int) -> int:
        """Return the sum over the ranks; collective."""
        words = torch.tensor([number])
        dist.all_reduce(words)
        return int(words)

    def at_boundary(self, passes: int, asked: bool, elapsed_ns: int) -> tuple[int, bool, int]:
        own = [passes, int(asked), elapsed_ns] if self.rank == 0 else [passes, 0, 0]
        words = torch.tensor(own)
        dist.all_reduce(words)
        passes, asked_words, elapsed_ns = words.tolist()
        return passes, asked_words > 0, elapsed_ns

    def reducing(self, model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, **_OWN_BUFFERS)

    @torch.no_grad()
    def check_alike(self, model: nn.Module) -> None:
        """Compare every parameter with rank 0's; collective.

        Raises:
            DisqualifiedError: they differ by more than rounding; on rank 0 alone.
        """
        different: list[str] = []
        for name, parameter in model.named_parameters():
            if parameter.numel() == 0:
                continue
            theirs = parameter.detach().clone()
            dist.broadcast(theirs, src=0)
            unlike = (parameter != theirs) & ~(parameter.isnan() & theirs.isnan())
            gap = torch.where(unlike, parameter - theirs, 0).abs().amax().nan_to_num(torch.inf)
            largest = theirs.abs().amax()
            if self.any(bool(gap > WEIGHTS_TOLERANCE * largest)):
                different.append(name)
        if different and self.rank == 0:
            raise DisqualifiedError(
                f"the ranks train different weights ({different[0]} and {len(different) - 1} "
                "others differ): something beside the loss and its gradients depends on a rank's "
                "own part of a batch, so this does not train in several processes"
            )
