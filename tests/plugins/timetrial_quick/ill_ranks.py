"""Submissions that fall ill in one of several processes, one a class."""

import os
import signal
import time

from timetrial_quick.faulty import Watched, leave_word

RANK = int(os.environ.get("RANK", "0"))


class Watched15(Watched):
    """Leaves word of the processes that took fifteen steps; the base of the others."""

    def after(self) -> None:
        if self.steps == 15:
            leave_word(f"{os.getpid()}")
            if RANK == 1:
                self.fall_ill()

    def fall_ill(self) -> None:
        raise NotImplementedError


class DiesInRankOne(Watched15):
    def fall_ill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class RaisesInRankOne(Watched15):
    def fall_ill(self) -> None:
        raise KeyError("no such moment")


class LeavesInRankOne(Watched15):
    def fall_ill(self) -> None:
        os._exit(3)


class HangsInRankOne(Watched15):
    def fall_ill(self) -> None:
        time.sleep(1000)


class GoesItsOwnWay(Watched15):
    def fall_ill(self) -> None:
        self.parameters()[0].data.add_(1)
