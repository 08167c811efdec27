import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import lease
from harness.errors import UsageError
from harness.lease import Lease, leased

Start = Callable[..., subprocess.Popen[str]]
WITHIN_S = 20

_HOLD = """\
import sys, time
from pathlib import Path
from harness.lease import leased

folder, name, share = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "share"
say = lambda text: print(text, flush=True)
with leased(name, share=share, waiting=say, interrupted=lambda: False, folder=folder) as lease:
    print("held", flush=True)
    sys.stdin.readline()
    lease.beat()
    print(lease.taints, flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes that take a lease and hold it until they are told to end."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, mode: str = "alone") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(tmp_path / "leases"), name, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(lease.__file__).parents[1])},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> str:
    """Let a holder go; return the taints that it printed."""
    output, _ = process.communicate("\n", timeout=WITHIN_S)
    return output.strip()


@contextlib.contextmanager
def held(
    folder: Path,
    name: str,
    *,
    share: bool = False,
    patience: int = 0,
    messages: list[str] | None = None,
) -> Iterator[Lease]:
    """Hold a lease in this process; give up after `patience` polls."""
    polls = iter(range(patience))
    said = [] if messages is None else messages
    with leased(
        name,
        share=share,
        waiting=said.append,
        interrupted=lambda: next(polls, None) is None,
        folder=folder,
    ) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    return tmp_path / "leases"


def test_one_process_waits_for_the_other_and_is_told_for_whom(start: Start) -> None:
    first = start("cpu")
    assert line(first) == "held"
    second = start("cpu")
    assert line(second) == (
        f"Waiting for the CPU, which the run of process {first.pid} uses. "
        "Ctrl-C to give up; --share to go on beside it, tainted."
    )
    assert end(first) == "[]"
    assert line(second) == "held"  # told once, then served
    assert end(second) == "[]"


def test_a_killed_holder_holds_no_more(start: Start) -> None:
    first = start("GPU-1")
    assert line(first) == "held"
    second = start("GPU-1")
    assert line(second).startswith(f"Waiting for the GPU-1, which the run of process {first.pid} ")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert line(second) == "held"


def test_a_stopped_holder_still_holds(start: Start, folder: Path) -> None:
    first = start("cpu")
    assert line(first) == "held"
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(KeyboardInterrupt), held(folder, "cpu"):
        pass


def test_a_shared_lease_taints_both(start: Start) -> None:
    first = start("cpu")
    assert line(first) == "held"
    second = start("cpu", "share")
    assert line(second) == "held"
    assert end(second) == "['the device was shared (--share)']"
    assert end(first) == "['another run used the device at the same time (--share)']"


@pytest.mark.parametrize(
    ("holder", "other", "together"),
    [
        ("cpu", "cpu", False),
        ("cpu", "GPU-1", False),
        ("GPU-1", "cpu", False),
        ("GPU-1", "GPU-1", False),
        ("GPU-1", "GPU-2", True),
        ("MIG-GPU-1/1/0", "MIG-GPU-1/2/0", True),
        ("MIG-GPU-1/1/0", "MIG-GPU-1/1/0", False),
    ],
)
def test_runs_on_different_gpus_run_together_and_a_cpu_run_alone(
    folder: Path, holder: str, other: str, together: bool
) -> None:
    with held(folder, holder), ExitStack() as stack:
        if together:
            stack.enter_context(held(folder, other))
        else:
            stack.enter_context(pytest.raises(KeyboardInterrupt))
            stack.enter_context(held(folder, other))
    with held(folder, other):
        pass


def test_a_cpu_run_waits_for_all_gpu_runs(folder: Path) -> None:
    with held(folder, "GPU-1"):
        with held(folder, "GPU-2"):
            pass
        with pytest.raises(KeyboardInterrupt), held(folder, "cpu"):
            pass
    with held(folder, "cpu"):
        pass


@pytest.mark.parametrize(
    ("holder", "sharing", "tainted"),
    [
        ("cpu", "cpu", True),
        ("cpu", "GPU-1", True),
        ("GPU-1", "cpu", True),
        ("GPU-1", "GPU-1", True),
        ("GPU-1", "GPU-2", False),  # as it would run beside it without --share
    ],
)
def test_a_sharing_run_taints_whom_it_disturbs(
    folder: Path, holder: str, sharing: str, tainted: bool
) -> None:
    with held(folder, holder) as first:
        assert first.taints == []
        with held(folder, sharing, share=True) as second:
            assert second.taints == ["the device was shared (--share)"]
        assert bool(first.taints) is tainted


def test_a_run_that_shared_before_taints_nobody(folder: Path) -> None:
    with held(folder, "cpu", share=True) as earlier:
        pass
    for mark in folder.glob("*.shared"):
        os.utime(mark, ns=(0, time.time_ns() - 10**9))
    with held(folder, "cpu") as lease_of_later:
        assert lease_of_later.taints == []
        earlier.beat()
        assert lease_of_later.taints != []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_waiting_can_be_interrupted_and_leaves_nothing_held(folder: Path) -> None:
    messages: list[str] = []
    with held(folder, "GPU-1"):
        before = open_files()
        with (
            pytest.raises(KeyboardInterrupt),
            held(folder, "GPU-1", patience=3, messages=messages),
        ):
            pass
        assert open_files() == before
    assert len(messages) == 1
    with held(folder, "GPU-1"), held(folder, "GPU-2"):
        pass
    with held(folder, "cpu"):
        pass


def test_an_error_in_the_run_frees_the_lease(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(folder, "cpu"):
        raise ZeroDivisionError
    with held(folder, "cpu"):
        pass


def test_a_lease_that_becomes_free_is_taken(folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(held(folder, "cpu"))
        release = threading.Timer(0.1, stack.close)
        release.start()
        with held(folder, "cpu", patience=10_000) as later:
            assert later.taints == []
        release.join()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1}', '{"pid": 4194305}'])
def test_a_holder_that_cannot_be_named_is_another_run(folder: Path, text: str) -> None:
    messages: list[str] = []
    with held(folder, "cpu"):
        (folder / "cpu.lock").write_text(text)
        with pytest.raises(KeyboardInterrupt), held(folder, "cpu", messages=messages):
            pass
    assert messages[0].startswith("Waiting for the CPU, which another run uses.")


# Folders that cannot be used. As root, permissions do not bind, so that they are pretended.


def test_no_folder_for_leases_is_an_error_with_ways_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "none" / "deeper"):
        with (
            pytest.raises(UsageError, match=r"No lease can be taken.*TMPDIR.*--share\."),
            held(folder, "cpu"),
        ):
            pass
        with held(folder, "cpu", share=True) as shared:
            shared.beat()
            assert shared.taints == ["the device was shared (--share)"]


def test_no_temporary_directory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with (
        pytest.raises(UsageError, match="No usable temporary directory found"),
        leased("cpu", share=False, waiting=print, interrupted=lambda: False),
    ):
        pass


def test_a_link_in_the_way_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "precious").write_text("data")
    (folder / "cpu.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="No lease can be taken"), held(folder, "cpu"):
        pass
    assert (tmp_path / "precious").read_text() == "data"


def _refusing(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """Make os.open refuse the access modes or flags in `refused`."""
    genuine = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & refused:
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)


def test_another_users_lock_file_that_may_only_be_read_still_excludes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(folder, "cpu"):
        pass
    _refusing(monkeypatch, os.O_RDWR)
    with held(folder, "cpu"), pytest.raises(KeyboardInterrupt), held(folder, "cpu"):
        pass


def test_an_existing_lock_file_is_opened_without_creating(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # fs.protected_regular refuses O_CREAT for another user's file in a sticky folder.
    with held(folder, "cpu"):
        pass
    _refusing(monkeypatch, os.O_CREAT)
    with held(folder, "cpu"):
        pass


def test_a_read_only_folder_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    _refusing(monkeypatch, os.O_CREAT)
    with pytest.raises(UsageError, match=r"Permission denied: .*cpu\.lock"), held(folder, "cpu"):
        pass


def test_a_file_system_without_locks_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(UsageError, match="No locks available"), held(folder, "cpu"):
        pass


def test_everybody_may_use_the_folder_and_the_locks(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with held(folder, "GPU-1"), held(folder, "GPU-1", share=True):
            modes = {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"cpu.lock": 0o666, "GPU-1.lock": 0o666, "GPU-1.shared": 0o666}
    assert folder.stat().st_mode & 0o7777 == 0o1777


def test_a_run_on_two_gpus_holds_both(folder: Path) -> None:
    both = leased(
        "GPU-2", share=False, waiting=print, interrupted=lambda: True, further=["GPU-1"],
        folder=folder,
    )  # fmt: skip
    with both as lease:
        assert lease.taints == []
        for name in ("GPU-1", "GPU-2"):
            with pytest.raises(KeyboardInterrupt), held(folder, name):
                pass
        with held(folder, "GPU-3"):
            pass
        with held(folder, "GPU-1", share=True):
            pass
        assert lease.taints != []  # somebody used one of them
    with held(folder, "GPU-1"), held(folder, "GPU-2"):
        pass
