"""tabular/adult and tabular/higgs: the readers, the splits and the rows, from small files."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import catalogue
from harness.cards import WorkloadCard
from harness.data_files import state
from harness.prepared_data import tensors_sha256
from workloads.tabular.adult import (
    CATEGORICAL,
    LEVELS,
    NUMERIC,
    BinaryRows,
    TabularAdult,
    read_people,
)
from workloads.tabular.higgs import EVALUATION_ROWS, TabularHiggs, read_collisions

Splits = dict[str, dict[str, Tensor]]
KINDS: dict[str, type[BinaryRows]] = {
    "tabular/adult": TabularAdult,
    "tabular/higgs": TabularHiggs,
}


@pytest.fixture(params=KINDS)
def card(request: pytest.FixtureRequest) -> WorkloadCard:
    return catalogue.workload(request.param).card


@pytest.fixture
def workload(card: WorkloadCard) -> BinaryRows:
    return KINDS[card.name](card)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numpy_state() -> list[int]:
    found: object = np.random.get_state()
    assert isinstance(found, tuple)
    return [*found[1].tolist(), found[2]]


def squared(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum()


def write(folder: Path, name: str, lines: list[str], end: str = "\n") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + end)
    return path


PERSON = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, "
    "Male, 2174, 0, 40, United-States, <=50K"
)


def people(n: int, seed: int) -> list[list[str]]:
    """Return made-up people; the first of any part show every level of every column."""
    random = np.random.RandomState(seed)
    rows = []
    for person in range(n):
        columns = [""] * 15
        for column in NUMERIC:
            columns[column] = str(random.randint(100))
        for column, levels in zip(CATEGORICAL, LEVELS, strict=True):
            level = person if person < levels else random.randint(levels)
            columns[column] = "?" if level == 0 else f"Level-{level:02}"
        columns[14] = "<=50K" if random.randint(4) else ">50K"
        rows.append(columns)
    return rows


def write_adult(folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    known, tested = people(100, seed=0), people(60, seed=1)
    write(folder, "adult/adult.data", [", ".join(row) for row in known], end="\n\n")
    remark = ["|1x3 Cross validator"]
    write(folder, "adult/adult.test", remark + [f"{', '.join(row)}." for row in tested], "\n\n")
    return known, tested


def write_higgs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(2)
    tables = []
    for part, rows in (("train", EVALUATION_ROWS + 200), ("test", 40)):
        table = random.randint(-3000, 3000, size=(rows, 29)) / 1000
        table[:, 0] = random.randint(2, size=rows)
        lines = ["\t".join([f"{row[0]:.0f}", *(f"{x:.3f}" for x in row[1:])]) for row in table]
        write(folder, f"higgs_7k/binary.{part}", lines)
        tables.append(table)
    return tables[0], tables[1]


@pytest.fixture
def made_up(
    workload: BinaryRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Splits]:
    (write_adult if isinstance(workload, TabularAdult) else write_higgs)(tmp_path)
    monkeypatch.setattr(workload, "path", lambda name: tmp_path / name)
    return workload.prepare()  # type: ignore[return-value]


def test_people_are_read_from_either_part(tmp_path: Path) -> None:
    rich = PERSON.replace("<=", ">")
    lines = ["|1x3 Cross validator", f"{PERSON}.", f"{rich}.", ""]
    found = read_people(write(tmp_path, "adult.test", lines))
    assert found == read_people(write(tmp_path, "adult.data", [PERSON, rich, ""]))
    assert [person[-1] for person in found] == ["<=50K", ">50K"]
    assert found[0][:3] == ["39", "State-gov", "77516"] and len(found[0]) == 15


@pytest.mark.parametrize(
    "row", [PERSON.replace(", Male", ""), PERSON.replace("<=50K", "50K"), "39 State-gov"]
)
def test_what_is_no_person_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(ValueError, match="a row that is no person: '39"):
        read_people(write(tmp_path, "adult.data", [PERSON, row]))


@pytest.mark.parametrize("label", ["2", "-1", "0.5"])
def test_collisions_have_two_classes_and_28_columns(tmp_path: Path, label: str) -> None:
    rest = "\t0.5" * 28
    good = read_collisions(write(tmp_path, "good", [f"1{rest}", f"0{rest}"]))
    assert good.shape == (2, 29) and good[:, 0].tolist() == [1, 0] and (good[:, 1:] == 0.5).all()
    for bad in (f"{label}{rest}", f"1{rest}\t0.5", "1\t2"):
        with pytest.raises(ValueError, match="a class and 28 measurements"):
            read_collisions(write(tmp_path, "bad", [bad]))


def test_prepare_is_identical_to_the_byte_and_leaves_the_generators_alone(
    workload: BinaryRows, made_up: Splits
) -> None:
    torch_before, numpy_before = torch.get_rng_state(), numpy_state()
    again = workload.prepare()
    assert torch.equal(torch_before, torch.get_rng_state())
    assert numpy_state() == numpy_before
    assert list(made_up) == ["training", "evaluation", "test"]
    for name, tensors in made_up.items():
        assert list(tensors) == ["rows", "labels"]
        rows, labels = tensors["rows"], tensors["labels"]
        assert rows.dtype == torch.float32 and labels.dtype == torch.int64
        assert rows.shape == (len(labels), workload.numeric + len(workload.levels))
        for key, tensor in tensors.items():
            assert tensor.numpy().tobytes() == again[name][key].numpy().tobytes()


def test_no_row_is_lost_or_stands_twice(workload: BinaryRows, made_up: Splits) -> None:
    sizes = [len(tensors["labels"]) for tensors in made_up.values()]
    assert sizes == ([80, 20, 60] if isinstance(workload, TabularAdult) else [200, 1000, 40])
    rows = torch.cat([tensors["rows"] for tensors in made_up.values()])
    assert len(torch.unique(rows, dim=0)) == sum(sizes)


def test_numeric_columns_keep_their_order_and_are_spread_by_the_training_rows(
    workload: BinaryRows, made_up: Splits
) -> None:
    numbers = made_up["training"]["rows"][:, : workload.numeric].double()
    assert numbers.mean(dim=0).abs().max() < 1e-5
    assert (numbers.var(dim=0) - 1).abs().max() < 0.05
    assert torch.cat([t["rows"] for t in made_up.values()])[:, : workload.numeric].abs().max() < 1.8


def test_adult_rows_are_the_people_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, tested = write_adult(tmp_path)
    workload = TabularAdult(catalogue.workload("tabular/adult").card)
    monkeypatch.setattr(workload, "path", lambda name: tmp_path / name)
    splits = workload.prepare()
    for place, column in enumerate(NUMERIC):
        by_value = np.argsort([float(person[column]) for person in tested], kind="stable")
        assert (np.diff(splits["test"]["rows"][:, place].numpy()[by_value]) >= 0).all()
    for person, row, label in zip(
        tested, splits["test"]["rows"].tolist(), splits["test"]["labels"].tolist(), strict=True
    ):
        assert label == (person[-1] == ">50K")
        for column, level in zip(CATEGORICAL, row[len(NUMERIC) :], strict=True):
            # "?" comes before letters, and the made-up names in the order of their numbers.
            assert level == (0 if person[column] == "?" else int(person[column][-2:]))
    rich = sum(int(t["labels"].sum()) for name, t in splits.items() if name != "test")
    assert rich == sum(person[-1] == ">50K" for person in known)


def test_higgs_rows_are_the_collisions_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, tested = write_higgs(tmp_path)
    workload = TabularHiggs(catalogue.workload("tabular/higgs").card)
    monkeypatch.setattr(workload, "path", lambda name: tmp_path / name)
    splits = workload.prepare()
    assert splits["test"]["labels"].tolist() == tested[:, 0].tolist()
    for column in (0, 27):
        by_value = np.argsort(tested[:, 1 + column], kind="stable")
        assert (np.diff(splits["test"]["rows"][:, column].numpy()[by_value]) >= 0).all()
    labels = torch.cat((splits["training"]["labels"], splits["evaluation"]["labels"]))
    assert labels.sum().item() == known[:, 0].sum()


def test_official_files_give_what_the_card_promises(
    workload: BinaryRows, card: WorkloadCard
) -> None:
    if "BENCH_DATA_DIR" not in os.environ:
        pytest.skip("BENCH_DATA_DIR is unset: no folder with the official files")
    if any(state(file, again=True) != "verified" for file in card.data.files):
        pytest.skip(f"BENCH_DATA_DIR has not the files on the card of {card.name}")
    splits = workload.prepare()
    assert {name: tensors_sha256(t) for name, t in splits.items()} == card.data.sha256
    assert len(splits["training"]["labels"]) == card.data.training_examples
    assert len(splits["evaluation"]["labels"]) == card.data.evaluation_examples
    assert len(splits["test"]["labels"]) == card.data.test_examples
    for column, levels in enumerate(workload.levels, start=workload.numeric):
        seen = torch.cat([t["rows"][:, column] for t in splits.values()])
        assert torch.equal(seen.unique(), torch.arange(levels).float())


def test_batches_evaluation_and_curvature(
    workload: BinaryRows, card: WorkloadCard, made_up: Splits
) -> None:
    indices = torch.tensor([3, 0, 3, 7])
    rows, labels = workload.training_batch(made_up["training"], indices, generator(0))
    assert torch.equal(rows, made_up["training"]["rows"][indices])
    assert torch.equal(labels, made_up["training"]["labels"][indices])
    synthetic = workload.synthetic_batch(4, generator(0))
    for ours, theirs in zip(synthetic, (rows, labels), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    many = workload.synthetic_batch(2000, generator(1))[0]
    for column, levels in enumerate(workload.levels, start=workload.numeric):
        assert torch.equal(many[:, column].unique(), torch.arange(levels).float())

    torch.manual_seed(0)
    model = workload.build_model()
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys() and model.training
    assert sum(p.numel() for p in names.values()) == card.parameters
    # Every level has to be in the batch, else its embedding has no gradient.
    rows, labels = workload.synthetic_batch(8, generator(2))
    loss = workload.per_example_loss(model(rows), labels, 0.0).mean()
    gradients = torch.autograd.grad(loss, list(names.values()), create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    curvature = torch.autograd.grad(squared(gradients), list(names.values()))
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)

    model.eval()
    with torch.inference_mode():
        metrics = workload.evaluate(model, made_up["test"])
        logits = model(made_up["test"]["rows"])
    right = (logits.argmax(dim=1) == made_up["test"]["labels"]).double().mean().item()
    assert set(metrics) == {"auc", "accuracy", "loss"}
    assert metrics["accuracy"] == pytest.approx(right, abs=1e-12) and 0.2 < metrics["auc"] < 0.8
