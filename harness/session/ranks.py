"""What a session asks of the processes that train together, the ranks, where there are several."""

import abc
from contextlib import AbstractContextManager

from torch import Tensor, nn


class Ranks(abc.ABC):
    """The ranks as one of them sees them. Collective methods are called by all, in one order.

    Attributes:
        rank: this process's number; 0 speaks for all.
        count: how many there are.
    """

    rank: int
    count: int

    def own_part(self, examples: int) -> slice | None:
        """Return which of so many examples are this rank's, None where each has to take all.

        Contiguous parts that differ by one at most. Fewer examples than ranks are not divided:
        every rank then computes the same.
        """
        if examples < self.count:
            return None
        return slice(self.rank * examples // self.count, (self.rank + 1) * examples // self.count)

    @abc.abstractmethod
    def advance(self) -> None:
        """Leave word that this rank is a pass or step further; not collective."""

    @abc.abstractmethod
    def own_randomness(self) -> AbstractContextManager[None]:
        """Have torch's global generators be this rank's own in the block; not collective.

        Outside they are the same on all ranks, so that what a submission draws is, too. Dropout
        has to differ: the ranks' examples do.
        """

    @abc.abstractmethod
    def gathered(self, part: Tensor, examples: int) -> Tensor:
        """Return the values [examples] of all ranks' parts, given this one's; collective."""

    @abc.abstractmethod
    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the ranks; collective."""

    @abc.abstractmethod
    def any(self, flag: bool) -> bool:
        """Return whether the flag is up on a rank; collective."""

    @abc.abstractmethod
    def at_boundary(self, passes: int, asked: bool, elapsed_ns: int) -> tuple[int, bool, int]:
        """Return what holds for the group at a step boundary; collective.

        Args:
            passes: model passes of this rank since the last boundary; returned: of all ranks.
            asked: whether an evaluation is asked for; returned: as rank 0 has it.
            elapsed_ns: the time on the clock; returned: as rank 0 has it.
        """

    @abc.abstractmethod
    def reducing(self, model: nn.Module) -> nn.Module:
        """Return a module around `model` whose backward averages gradients over the ranks.

        Collective, as each of its backwards. Its parameters are `model`'s.
        """
