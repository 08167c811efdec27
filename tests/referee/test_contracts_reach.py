"""What a submission can get at by way of its session: no evaluation data, and no metric."""

import functools
import inspect
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from referee.quick_runs import PLUGINS, Track
from safetensors.torch import load_file
from torch import Tensor

from harness import messages
from harness.cards import WorkloadCard, read_card
from harness.prepared_data import tensors_sha256
from harness.prepared_paths import SPLITS, split_path
from harness.session import Session

SNOOP = str(PLUGINS / "timetrial_quick" / "snoop.py")


def rows(tensors: dict[str, Tensor]) -> set[bytes]:
    """Every run of eight numbers along the last dimension: the points of quick/blobs."""
    wide = [t for t in tensors.values() if t.dtype == torch.float32 and t.shape[-1:] == (8,)]
    return {row.numpy().tobytes() for t in wide for row in t.reshape(-1, 8)}


def test_no_evaluation_data_can_be_reached_from_the_session_of_a_run(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK_FINDINGS", str(tmp_path))
    record = track.race(SNOOP).record
    found = load_file(tmp_path / "tensors")
    texts = (tmp_path / "texts").read_text()
    card = read_card(PLUGINS / "timetrial_quick" / "workloads" / "blobs.yaml", WorkloadCard)
    splits = {split: load_file(split_path(card, split)) for split in SPLITS}

    # The walk is thorough: it comes to the training split, the weights and the run's names.
    hashes = {tensors_sha256({"": tensor}) for tensor in found.values()}
    for tensor in splits["training"].values():
        assert tensors_sha256({"": tensor}) in hashes
    assert rows(splits["training"]) <= rows(found)
    assert record.run_id in texts and len(found) > 10

    for split in ("evaluation", "test"):
        for tensor in splits[split].values():
            assert tensors_sha256({"": tensor}) not in hashes
        assert not (rows(splits[split]) - rows(splits["training"])) & rows(found)
        assert split_path(card, split).name not in texts
        assert str(split_path(card, split).parent) not in texts


def test_the_walk_finds_what_is_hidden() -> None:
    """Else it would prove nothing."""
    from timetrial_quick.reach import reachable

    class Slotted:
        __slots__ = ("hidden",)

        def __init__(self, hidden: object) -> None:
            self.hidden = hidden

        def method(self) -> None:
            pass

    def enclosing(hidden: object) -> Any:
        return lambda: hidden

    def generating(hidden: object) -> Any:
        kept = hidden
        yield
        yield kept

    secret = torch.randn(3)
    started = generating(secret)
    next(started)
    owner = type("Owner", (), {"kept": secret})
    for hiding_place in (
        [{"a": (secret,)}],
        Slotted(secret),
        Slotted(secret).method,
        enclosing(secret),
        functools.partial(print, secret),
        started,
        owner(),
        SimpleNamespace(module=torch.nn.ParameterList([secret])),
        iter([secret]),
        enclosing(Slotted(enclosing(secret))),
    ):
        tensors = [o for o in reachable(hiding_place) if isinstance(o, Tensor)]
        assert any(torch.equal(tensor, secret) for tensor in tensors), hiding_place
    assert not any(isinstance(o, Tensor) for o in reachable(Slotted("nothing")))


def test_what_the_trainee_is_told_holds_no_metric() -> None:
    fields = {
        kind: {field.name for field in msgspec.structs.fields(kind)}
        for kind in typing.get_args(messages.FromReferee)
    }
    assert fields == {
        messages.Prepare: {"spec"},
        messages.Start: set(),
        messages.Resume: set(),
        messages.Stop: {"reason"},  # the run is over; a submission never sees it
    }


def test_no_member_of_the_session_returns_a_metric() -> None:
    """By its annotation: what comes back is of the training, or nothing."""
    returned = {}
    for name, member in inspect.getmembers(Session):
        if not name.startswith("_"):
            function = member.fget if isinstance(member, property) else member
            returned[name] = inspect.signature(function).return_annotation
    numbers = {name for name, kind in returned.items() if kind in (int, float, dict)}
    assert numbers == {"steps", "examples", "elapsed_s", "progress"}
    assert returned["maybe_evaluate"] is None
    metric_words = ("metric", "accuracy", "target", "evaluation", "verdict", "outcome", "reached")
    assert not [name for name in dir(Session) if any(word in name for word in metric_words)]
