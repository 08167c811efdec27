import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.telemetry.process_memory import ProcessTreeMemory

MIB = 2**20
ALLOCATED = 200 * MIB

# Obeys one word a line and answers each, so that tests never wait by sleeping. Its memory is an
# anonymous map, which goes back to the system when closed; the grandchild ends with the child.
CHILD = f"""
import mmap, subprocess, sys
block = grandchild = None
for line in sys.stdin:
    if line == "allocate\\n":
        block = mmap.mmap(-1, {ALLOCATED})
        for offset in range(0, {ALLOCATED}, mmap.PAGESIZE):
            block[offset] = 1
    elif line == "free\\n":
        block.close()
    elif line == "compute\\n":
        sum(range(10_000_000))
    elif line == "fork\\n":
        grandchild = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    elif line == "end\\n":
        grandchild.kill(); grandchild.wait()
    print("done", flush=True)
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")


class Child:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child()
    started.tell("hello")
    yield started
    started.end()


def test_resident_memory_of_a_child(child: Child) -> None:
    memory = ProcessTreeMemory(child.pid)
    idle = memory.memory_bytes()
    child.tell("allocate")
    loaded = memory.memory_bytes()
    assert idle is not None
    assert loaded is not None
    assert loaded - idle == pytest.approx(ALLOCATED, rel=0.05)


@on_linux
def test_peak_sees_what_is_gone_and_a_reset_forgets_it(child: Child) -> None:
    memory = ProcessTreeMemory(child.pid)
    child.tell("allocate")
    child.tell("free")
    now, peak = memory.memory_bytes(), memory.peak()
    assert now is not None
    assert peak is not None
    assert now < ALLOCATED / 2
    assert peak > ALLOCATED
    if not memory.reset_peak():
        pytest.skip("this kernel or container does not let VmHWM be reset")
    peak = memory.peak()
    assert peak is not None
    assert peak < ALLOCATED / 2
    child.tell("allocate")
    peak = memory.peak()
    assert peak is not None
    assert peak > ALLOCATED


def test_descendants_are_refreshed_once_a_second(child: Child) -> None:
    now = 0.0
    memory = ProcessTreeMemory(child.pid, clock=lambda: now)
    assert memory.pids() == {child.pid}
    alone = memory.memory_bytes()
    child.tell("fork")
    now = 0.9
    assert memory.pids() == {child.pid}
    now = 1.0
    assert len(memory.pids()) == 2
    together = memory.memory_bytes()
    assert alone is not None
    assert together is not None
    assert together > alone


def test_a_vanished_descendant_is_left_out(child: Child) -> None:
    child.tell("fork")
    memory = ProcessTreeMemory(child.pid)
    assert len(memory.pids()) == 2
    assert memory.cpu_seconds() == 0.0
    child.tell("end")
    assert memory.memory_bytes() == pytest.approx(psutil.Process(child.pid).memory_info().rss)
    cpu_seconds = memory.cpu_seconds()
    assert cpu_seconds is not None
    assert cpu_seconds >= 0.0


def test_a_dead_process_has_no_figures() -> None:
    child = Child()
    memory = ProcessTreeMemory(child.pid)
    assert memory.memory_bytes() is not None
    child.end()
    assert memory.memory_bytes() is None
    assert memory.cpu_seconds() is None
    assert memory.peak() is None
    assert not memory.reset_peak()
    assert ProcessTreeMemory(child.pid).memory_bytes() is None
    assert ProcessTreeMemory(child.pid).pids() == frozenset()


def test_a_process_not_waited_for_is_gone_not_small(child: Child) -> None:
    memory = ProcessTreeMemory(child.pid)
    child.process.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert memory.memory_bytes() is None


def test_cpu_seconds_count_from_the_first_call(child: Child) -> None:
    child.tell("compute")
    memory = ProcessTreeMemory(child.pid)
    assert memory.cpu_seconds() == 0.0
    child.tell("compute")
    used = memory.cpu_seconds()
    assert used is not None
    assert 0.0 < used < 60.0


def test_without_proc_there_is_no_high_water_mark(tmp_path: Path) -> None:
    memory = ProcessTreeMemory(os.getpid(), proc=tmp_path)
    assert memory.peak() is None
    assert not memory.reset_peak()
    assert memory.memory_bytes() is not None


def test_a_refused_reset_is_remembered(tmp_path: Path) -> None:
    memory = ProcessTreeMemory(7, proc=tmp_path)
    assert not memory.reset_peak()
    (tmp_path / "7").mkdir()
    clear_refs = tmp_path / "7" / "clear_refs"
    clear_refs.touch()
    assert not memory.reset_peak()
    assert clear_refs.read_text() == ""
    assert ProcessTreeMemory(7, proc=tmp_path).reset_peak()
    assert clear_refs.read_text() == "5"


def test_high_water_mark_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("VmPeak:\t  9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n")
    assert ProcessTreeMemory(7, proc=tmp_path).peak() == 2 * MIB
