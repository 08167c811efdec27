import hashlib
import multiprocessing
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from records.synthetic_runs import workload_card
from torch import Tensor, nn

from harness.cards import WorkloadCard
from harness.errors import UsageError
from harness.prepared_data import load_split, prepare, tensors_sha256
from harness.prepared_paths import SPLITS, Split, is_prepared, split_path
from harness.workload import Workload

CPU = torch.device("cpu")


def data() -> dict[str, dict[str, Tensor]]:
    return {
        split: {
            "inputs": torch.arange(12, dtype=torch.float32).reshape(4, 3) + number,
            "targets": torch.tensor([0, 1, 1, number]),
        }
        for number, split in enumerate(SPLITS)
    }


class Blobs(Workload):
    """Makes what it is given; trains nothing."""

    made: Mapping[str, dict[str, Tensor]] = data()

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        return dict(self.made)

    def build_model(self) -> nn.Module:
        raise NotImplementedError

    training_batch = synthetic_batch = per_example_loss = evaluate = build_model  # type: ignore[assignment]


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkloadCard:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = workload_card()
    hashes: dict[Split, str] = {split: tensors_sha256(data()[split]) for split in SPLITS}
    return msgspec.structs.replace(plain, data=msgspec.structs.replace(plain.data, sha256=hashes))


def test_prepared_data_is_read_again(card: WorkloadCard) -> None:
    assert not is_prepared(card)
    prepare(Blobs(card))
    assert is_prepared(card)
    for split in SPLITS:
        loaded = load_split(card, split, CPU)
        assert loaded.keys() == data()[split].keys()
        for name, tensor in loaded.items():
            assert torch.equal(tensor, data()[split][name])


def test_each_split_is_a_file_of_its_own(card: WorkloadCard, tmp_path: Path) -> None:
    prepare(Blobs(card))
    names = [path.name for path in (tmp_path / "timetrial").rglob("*") if path.is_file()]
    assert sorted(name.partition("-")[0] for name in names) == sorted(SPLITS)


def test_another_version_or_hash_is_another_file(card: WorkloadCard) -> None:
    path = split_path(card, "training")
    assert split_path(msgspec.structs.replace(card, version=2), "training") != path
    assert split_path(workload_card(), "training") != path


def test_data_that_is_not_the_cards_is_refused_and_nothing_stored(
    card: WorkloadCard, tmp_path: Path
) -> None:
    workload = Blobs(card)
    workload.made = data() | {"test": {"inputs": torch.zeros(1)}}
    with pytest.raises(
        UsageError, match=r"The test data of blobs/two version 1 hashes to .*Delete"
    ):
        prepare(workload)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_what_to_do(card: WorkloadCard) -> None:
    with pytest.raises(UsageError, match=r"training data of blobs/two cannot be read: .* Delete /"):
        load_split(card, "training", CPU)


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "text", "folder"])
def test_a_damaged_file_says_what_to_delete(card: WorkloadCard, damage: str) -> None:
    prepare(Blobs(card))
    path = split_path(card, "evaluation")
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.touch()
        case "cut":
            path.write_bytes(content[:-1])
        case "header":
            path.write_bytes(b"\xff" * 8 + content[8:])
        case "text":
            path.write_text("no tensors")
        case "folder":
            path.mkdir()
    with pytest.raises(UsageError) as caught:
        load_split(card, "evaluation", CPU)
    message = str(caught.value)
    assert message.startswith("The prepared evaluation data of blobs/two cannot be read: ")
    assert message.endswith(f"Delete {path.parent}; the next run makes it anew.")


def test_a_flipped_bit_is_found(card: WorkloadCard) -> None:
    prepare(Blobs(card))
    path = split_path(card, "evaluation")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"hashes to .*Delete {path.parent} and try again"):
        load_split(card, "evaluation", CPU)


def test_a_cache_that_cannot_be_written_is_named_with_a_way_out(
    card: WorkloadCard, tmp_path: Path
) -> None:
    (tmp_path / "timetrial").touch()
    with pytest.raises(UsageError, match=r"cannot be stored: .*point XDG_CACHE_HOME to another"):
        prepare(Blobs(card))


def test_a_full_disk_leaves_no_litter(
    card: WorkloadCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.prepared_data.save_file", full)
    with pytest.raises(UsageError, match="No space left on device"):
        prepare(Blobs(card))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _prepare_often(card: WorkloadCard) -> None:
    for _ in range(50):
        prepare(Blobs(card))


def test_two_processes_may_prepare_at_once(card: WorkloadCard, tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_prepare_often, args=(card,))
    other.start()
    while other.is_alive():
        prepare(Blobs(card))
        for split in SPLITS:
            load_split(card, split, CPU)
    other.join()
    assert other.exitcode == 0
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(SPLITS)


# The hash.


def test_the_hash_is_of_the_values_and_never_changes() -> None:
    tensors = {"b": torch.tensor([1, 2]), "a": torch.tensor([[1.5]], dtype=torch.float32)}
    by_hand = hashlib.sha256(
        b"a torch.float32 (1, 1)\n"
        + np.array([1.5], "<f4").tobytes()
        + b"b torch.int64 (2,)\n"
        + np.array([1, 2], "<i8").tobytes()
    )
    assert tensors_sha256(tensors) == by_hand.hexdigest()


def test_the_hash_sees_no_order_layout_or_file_format(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    strided = torch.arange(12.0).reshape(2, 6)[:, ::2].mul(0.5)
    one = {"x": tensor, "y": strided}
    other = {"y": strided.t().contiguous().t(), "x": torch.from_numpy(tensor.numpy().copy())}
    assert tensors_sha256(one) == tensors_sha256(other)
    torch.save(one, tmp_path / "one.pt")
    assert tensors_sha256(torch.load(tmp_path / "one.pt")) == tensors_sha256(one)
    np.savez(tmp_path / "one.npz", x=tensor.numpy(), y=strided.numpy())
    with np.load(tmp_path / "one.npz") as loaded:
        from_numpy = {name: torch.from_numpy(loaded[name]) for name in ("x", "y")}
    assert tensors_sha256(from_numpy) == tensors_sha256(one)


def test_the_hash_sees_names_types_shapes_and_values() -> None:
    plain = torch.zeros(2, 2)
    variants = [
        {"x": plain},
        {"y": plain},
        {"x": plain.to(torch.int32)},
        {"x": plain.reshape(4)},
        {"x": plain + 1},
        {"x": plain, "y": plain},
        {},
    ]
    assert len({tensors_sha256(variant) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_every_dtype_and_shape_has_a_hash(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert len(tensors_sha256({"x": torch.ones(shape, dtype=dtype)})) == 64
