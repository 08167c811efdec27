import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records.synthetic_runs import SyntheticRun

from harness.messages import (
    MAX_MESSAGE_BYTES,
    Evaluate,
    Exported,
    Failed,
    Finished,
    FromTrainee,
    Note,
    Prepare,
    ProtocolError,
    Ready,
    RefereeEnd,
    RefereeGoneError,
    Resume,
    Start,
    Stop,
    TraineeEnd,
)

Ends = tuple[RefereeEnd, TraineeEnd, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield RefereeEnd(ours), TraineeEnd(theirs), theirs


SENT: list[FromTrainee] = [
    Ready(import_ns=1),
    Evaluate(compile_ns=2, gpu_peak_allocated_bytes=None),
    Exported(size=3),
    Note(key="k", value="v"),
    Failed(kind="out_of_memory", summary="s", traceback="t" * 100_000),
    Finished(reason="r", compile_ns=4),
]


def test_one_message_arrives_for_each_sent(ends: Ends) -> None:
    referee, trainee, _ = ends
    assert not referee.wait(0)
    for message in SENT:
        trainee.send(message)
    for message in SENT:
        assert referee.wait(0)
        assert referee.receive() == message
    assert not referee.wait(0)


def test_the_referees_messages_arrive_whole(ends: Ends) -> None:
    referee, trainee, _ = ends
    sent = [Prepare(spec=SyntheticRun(run_id="r").spec()), Start(), Resume(), Stop(reason="why")]
    for message in sent:
        referee.send(message)
    assert [trainee.receive() for _ in sent] == sent


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), max_size=20), st.text(max_size=40))
def test_messages_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int], text: str) -> None:
    ours, theirs = socket.socketpair()
    sent = [Note(key="a", value=text), Ready(import_ns=5), Exported(size=6)]
    content = b""
    for message in sent:
        part = msgspec.msgpack.encode(message)
        content += len(part).to_bytes(4, "big") + part
    with ours, theirs:
        referee = RefereeEnd(ours)
        received = []
        for cut in [*cuts, len(content)]:
            theirs.sendall(content[:cut])
            content = content[cut:]
            while referee.wait(0):
                received.append(referee.receive())
        assert received == sent


@pytest.mark.parametrize(
    "content",
    [
        (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"GARB",
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        b"\0\0\0\5hello",
        # A message of the other direction, and one of no direction.
        b"\0\0\0\x0c" + msgspec.msgpack.encode(Start()),
        b"\0\0\0\x0c" + b"\x81\xa4type\xa5Panic",
    ],
)
def test_garbage_is_refused(ends: Ends, content: bytes) -> None:
    referee, _, theirs = ends
    theirs.sendall(content)
    assert referee.wait(0)
    with pytest.raises(ProtocolError):
        referee.receive()


def test_a_pickle_is_refused_unread(ends: Ends, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "loaded",))

    referee, _, theirs = ends
    bomb = pickle.dumps(Bomb())
    theirs.sendall(len(bomb).to_bytes(4, "big") + bomb)
    assert referee.wait(0)
    with pytest.raises(ProtocolError):
        referee.receive()
    assert not list(tmp_path.iterdir())


def test_a_message_cut_off_is_waited_for_no_longer_than_asked(ends: Ends) -> None:
    referee, _, theirs = ends
    theirs.sendall(b"\0\0\1\0half")
    assert not referee.wait(0.05)
    theirs.close()
    assert referee.wait(0)
    with pytest.raises(EOFError):
        referee.receive()


def test_what_was_said_before_the_end_is_heard(ends: Ends) -> None:
    referee, trainee, theirs = ends
    trainee.send(Ready(import_ns=1))
    referee.send(Start())  # never read: the end of the pipe is then a reset
    theirs.close()
    assert referee.wait(0)
    assert referee.receive() == Ready(import_ns=1)
    assert referee.wait(0)
    with pytest.raises(EOFError):
        referee.receive()
    with pytest.raises(OSError, match="Broken pipe"):
        referee.send(Start())


def test_the_trainee_hears_that_the_referee_is_gone(ends: Ends) -> None:
    referee, trainee, _ = ends
    referee.close()
    with pytest.raises(RefereeGoneError):
        trainee.receive()
    with pytest.raises(RefereeGoneError):
        trainee.send(Ready(import_ns=1))
    # A submission that catches every error does not catch this one.
    assert not issubclass(RefereeGoneError, Exception)
