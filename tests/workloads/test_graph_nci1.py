"""graph/nci1: the reader, the split, message passing, the loss and the metric by hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.cards import WorkloadCard
from harness.data_files import state
from workloads.binary_classification import area_under_roc
from workloads.graph.model import GIN, TYPICAL_NODES, GINSettings, Layer
from workloads.graph.nci1 import (
    ABSENT,
    DEPTH,
    FILE,
    NEIGHBOURS,
    NODES,
    TAGS,
    GraphNCI1,
    read_graphs,
)

Splits = dict[str, dict[str, Tensor]]

# A triangle with a tail, two nodes apart from each other, and a single node.
SMALL = """3
4 1
5 2 1 2
0 2 0 2
36 3 0 1 3
2 1 2
2 0
1 0
1 0
1 1
7 0
"""


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("graph/nci1").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> GraphNCI1:
    return GraphNCI1(card)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "graphs.txt"
    path.write_text(SMALL)
    return path


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numpy_state() -> list[int]:
    found: object = np.random.get_state()
    assert isinstance(found, tuple)
    return [*found[1].tolist(), found[2]]


def squared(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum()


def small(**choices: object) -> GIN:
    settings = GINSettings(**{"width": 6} | choices)  # type: ignore[arg-type]
    return GIN(tags=TAGS, classes=2, depth=2, settings=settings)


def random_graphs(sizes: list[int], seed: int) -> Tensor:
    """Return rings, in which every node knows the next and the last one, with random tags."""
    graphs = torch.full((len(sizes), NODES, 1 + NEIGHBOURS), ABSENT, dtype=torch.int16)
    tags = torch.randint(TAGS, (len(sizes), NODES), generator=generator(seed)).short()
    for graph, nodes in enumerate(sizes):
        ring = torch.arange(nodes, dtype=torch.int16)
        graphs[graph, :nodes, 0] = tags[graph, :nodes]
        graphs[graph, :nodes, 1] = ring.roll(1)
        graphs[graph, :nodes, 2] = ring.roll(-1)
    return graphs


def test_text_becomes_tags_and_neighbours(text: Path) -> None:
    graphs, labels = read_graphs(text)
    assert graphs.dtype == torch.int16 and graphs.shape == (3, NODES, 1 + NEIGHBOURS)
    assert labels.dtype == torch.int64 and labels.tolist() == [1, 0, 1]
    assert graphs[0, :4].tolist() == [
        [5, 1, 2, -1, -1],
        [0, 0, 2, -1, -1],
        [36, 0, 1, 3, -1],
        [2, 2, -1, -1, -1],
    ]
    assert graphs[1, :2, 0].tolist() == [1, 1] and (graphs[1, :, 1:] == ABSENT).all()
    assert [(graph[:, 0] != ABSENT).sum().item() for graph in graphs] == [4, 2, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3\n4", "4\n4"),  # a graph too few
        ("7 0\n", "7 0\n7 0\n"),  # a line too many
        ("5 2 1 2", "5 2 1 4"),  # no such neighbour
        ("5 2 1 2", "5 3 1 2"),  # fewer neighbours than it says
        ("36 3", "37 3"),  # no such tag
        ("4 1", "4 2"),  # no such class
        ("36 3 0 1 3", "36 5 0 1 3 0 1"),  # more neighbours than there is room for
        ("5 2 1 2", "five 2 1 2"),
    ],
)
def test_what_is_no_list_of_graphs_is_refused(text: Path, old: str, new: str) -> None:
    text.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(ValueError, match="no list of graphs of at most 111 nodes"):
        read_graphs(text)


def made_up(folder: Path) -> None:
    """Write a file in the official format: rings of 3 to 12 nodes, class 1 if odd."""
    random = np.random.RandomState(0)
    lines = ["64"]
    for graph in range(64):
        nodes = 3 + graph % 10
        lines.append(f"{nodes} {nodes % 2}")
        lines += [
            f"{random.randint(TAGS)} 2 {(node - 1) % nodes} {(node + 1) % nodes}"
            for node in range(nodes)
        ]
    path = folder / FILE
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")


def test_prepare_splits_either_class_and_repeats_to_the_byte(
    workload: GraphNCI1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(tmp_path)
    monkeypatch.setattr(workload, "path", lambda name: tmp_path / name)
    torch_before, numpy_before = torch.get_rng_state(), numpy_state()
    splits, again = workload.prepare(), workload.prepare()
    assert torch.equal(torch_before, torch.get_rng_state())
    assert numpy_state() == numpy_before
    assert list(splits) == ["training", "evaluation", "test"]
    for name, tensors in splits.items():
        assert list(tensors) == ["graphs", "labels"]
        for key, tensor in tensors.items():
            assert tensor.numpy().tobytes() == again[name][key].numpy().tobytes()
    # Of 33 odd rings and 31 even ones four each, a tenth rounded up.
    for name in ("evaluation", "test"):
        assert torch.bincount(splits[name]["labels"]).tolist() == [4, 4]
    graphs = torch.cat([tensors["graphs"] for tensors in splits.values()])
    assert len(graphs) == len(torch.unique(graphs, dim=0)) == 64  # none twice, none lost
    sizes = (graphs[:, :, 0] != ABSENT).sum(dim=1)
    assert torch.equal(torch.cat([t["labels"] for t in splits.values()]), sizes % 2)


def test_official_file_gives_what_the_card_promises(
    workload: GraphNCI1, card: WorkloadCard
) -> None:
    if "BENCH_DATA_DIR" not in os.environ:
        pytest.skip("BENCH_DATA_DIR is unset: no folder with NCI1.txt")
    if state(card.data.files[0], again=True) != "verified":
        pytest.skip(f"BENCH_DATA_DIR has no {FILE} as on the card")
    from harness.prepared_data import tensors_sha256

    splits = workload.prepare()
    assert {name: tensors_sha256(t) for name, t in splits.items()} == card.data.sha256
    sizes = [len(splits[name]["labels"]) for name in ("training", "evaluation", "test")]
    assert sizes == [3286, 412, 412]
    graphs = torch.cat([tensors["graphs"] for tensors in splits.values()]).long()
    assert (graphs[:, :, 0] != ABSENT).sum(dim=1).max() == NODES
    for graph in graphs[::50]:  # bonds go both ways
        bonds = {(i, j) for i in range(NODES) for j in graph[i, 1:].tolist() if j != ABSENT}
        assert bonds == {(j, i) for i, j in bonds}


def test_model_by_plain_loops_over_nodes() -> None:
    torch.manual_seed(0)
    model = small(normalisation="layer").double().eval()
    p = dict(model.named_parameters())
    with torch.no_grad():
        for layer in range(2):
            p[f"layers.{layer}.epsilon"].fill_(0.3 - layer)
    graphs = random_graphs([5, 1, 3], seed=1)
    graphs[2, 2, 1:] = ABSENT  # edges may go one way

    def normalised(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    expected = []
    for graph in graphs.tolist():
        nodes = [node for node in graph if node[0] != ABSENT]
        features = [torch.eye(TAGS).double()[node[0]] for node in nodes]
        logits = torch.zeros(2).double()
        for depth in range(3):
            total = torch.stack(features).sum(dim=0) / TYPICAL_NODES
            logits += p[f"heads.{depth}.weight"] @ total + p[f"heads.{depth}.bias"]
            if depth == 2:
                break
            name = f"layers.{depth}"
            summed = [
                (1 + p[f"{name}.epsilon"]) * features[i]
                + sum(features[j] for j in node[1:] if j != ABSENT)
                for i, node in enumerate(nodes)
            ]
            features = []
            for x in summed:
                hidden = normalised(p[f"{name}.first.weight"] @ x, f"{name}.norm1").clamp_min(0)
                hidden = normalised(p[f"{name}.second.weight"] @ hidden, f"{name}.norm2")
                features.append(hidden.clamp_min(0))
        expected.append(logits)
    torch.testing.assert_close(model(graphs), torch.stack(expected))


def test_numbering_the_nodes_otherwise_changes_nothing() -> None:
    torch.manual_seed(0)
    model = small().double().eval()
    graphs = random_graphs([30, 12], seed=2)
    order = torch.randperm(30, generator=generator(3))
    renamed = graphs.clone()
    renamed[0, order] = graphs[0, :30]
    known = renamed[0, :30, 1:3]
    renamed[0, :30, 1:3] = order[known.long()].short()
    assert not torch.equal(renamed, graphs)
    torch.testing.assert_close(model(renamed), model(graphs))


def test_a_graph_does_not_depend_on_the_others_in_evaluation() -> None:
    torch.manual_seed(0)
    model = small().double().eval()
    graphs = random_graphs([30, 111, 3], seed=4)
    together = model(graphs)
    for graph in range(3):
        torch.testing.assert_close(model(graphs[graph : graph + 1])[0], together[graph])


def test_padding_is_no_node_for_batch_normalisation() -> None:
    torch.manual_seed(0)
    model = small()
    model(random_graphs([9], seed=5))
    layer = model.layers[0]
    assert isinstance(layer, Layer) and isinstance(layer.norm1, nn.BatchNorm1d)
    tags = random_graphs([9], seed=5)[0, :9, 0].long()
    first = layer.first.weight.T[tags]
    summed = first + first.roll(1, dims=0) + first.roll(-1, dims=0)
    torch.testing.assert_close(layer.norm1.running_mean, 0.1 * summed.mean(dim=0))


def test_area_under_the_curve_by_counting_pairs() -> None:
    scores = torch.tensor([0.3, -1.0, 0.3, 2.0, 0.3, 0.0, -1.0, 5.0], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0])
    right = 0.0
    for one in scores[labels == 1].tolist():
        for zero in scores[labels == 0].tolist():
            right += 1.0 if one > zero else 0.5 if one == zero else 0.0
    assert area_under_roc(scores, labels).item() == pytest.approx(right / 16, abs=1e-15)
    assert area_under_roc(labels.double(), labels).item() == 1
    assert area_under_roc(-labels.double(), labels).item() == 0
    assert area_under_roc(torch.zeros(8), labels).item() == 0.5


class KnowsTheFirstTag(nn.Module):
    """Class 1 is as likely as the first node's tag is large."""

    def forward(self, graphs: Tensor) -> Tensor:
        odds = graphs[:, 0, 0].float() - TAGS / 2
        return torch.stack((torch.zeros_like(odds), odds), dim=1)


def test_evaluate_and_loss_by_hand(workload: GraphNCI1) -> None:
    graphs = random_graphs([4] * 300, seed=6)
    labels = torch.randint(2, (300,), generator=generator(7))
    with torch.inference_mode():
        metrics = workload.evaluate(KnowsTheFirstTag(), {"graphs": graphs, "labels": labels})
    odds = [tag - TAGS / 2 for tag in graphs[:, 0, 0].tolist()]
    answers = labels.tolist()
    right = sum((o > 0) == bool(y) for o, y in zip(odds, answers, strict=True))
    losses = [math.log(1 + math.exp(-o if y else o)) for o, y in zip(odds, answers, strict=True)]
    assert set(metrics) == {"auc", "accuracy", "loss"}
    assert metrics["accuracy"] == pytest.approx(right / 300, abs=1e-12)
    assert metrics["loss"] == pytest.approx(sum(losses) / 300, rel=1e-6)
    ones = [o for o, y in zip(odds, answers, strict=True) if y]
    zeros = [o for o, y in zip(odds, answers, strict=True) if not y]
    pairs = sum((a > b) + (a == b) / 2 for a in ones for b in zeros)
    assert metrics["auc"] == pytest.approx(pairs / len(ones) / len(zeros), abs=1e-12)
    outputs = KnowsTheFirstTag()(graphs)
    for smoothing in (0.0, 0.2):
        expected = [
            (1 - smoothing / 2) * math.log(1 + math.exp(-o if y else o))
            + smoothing / 2 * math.log(1 + math.exp(o if y else -o))
            for o, y in zip(odds, answers, strict=True)
        ]
        found = workload.per_example_loss(outputs, labels, smoothing)
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "choices",
    [
        {"activation": "gelu"},
        {"activation": "silu"},
        {"normalisation": "layer"},
        {"width": 8},
    ],
    ids=str,
)
def test_each_choice_changes_the_model(choices: dict[str, object]) -> None:
    graphs = random_graphs([30, 12], seed=8)
    torch.manual_seed(0)
    usual = small()(graphs)
    torch.manual_seed(0)
    assert not torch.allclose(small(**choices)(graphs), usual)


def test_model_can_be_differentiated_twice(workload: GraphNCI1) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(8, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    curvature = torch.autograd.grad(squared(gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(
    workload: GraphNCI1, card: WorkloadCard
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys() and len(workload.head_parameters) == 2 * (
        DEPTH + 1
    )
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: GraphNCI1) -> None:
    graphs, labels = random_graphs([20] * 32, seed=9), torch.arange(32) % 2
    indices = torch.tensor([3, 0, 3])
    real = workload.training_batch({"graphs": graphs, "labels": labels}, indices, generator(0))
    assert torch.equal(real[0], graphs[indices]) and torch.equal(real[1], labels[indices])
    synthetic = workload.synthetic_batch(3, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    nodes = synthetic[0][..., 0] != ABSENT
    assert (nodes.sum(dim=1) == 30).all() and synthetic[0][..., 0].max() < TAGS
    known = synthetic[0][..., 1:]
    assert known.max() == 29 and (known[~nodes] == ABSENT).all()
    assert (known != ABSENT).sum() == 3 * 2 * 29  # a chain, both ways
    again = workload.synthetic_batch(3, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
