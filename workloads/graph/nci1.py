"""graph/nci1: which compounds slow down the growth of a lung cancer's cells, from their graphs.

NCI1 (Wale, Watson and Karypis 2008; in TUDataset, 2007.08663): 4,110 molecules as graphs of
atoms, tagged by element, and bonds. The file is the text form that the authors of DGCNN publish
(Zhang et al. 2018).

Evaluation and test hold a tenth of either class each. On 412 graphs the accuracy moves in steps
of a quarter of a percent; what decides is the area under the ROC curve, which weighs each of
42,436 pairs of graphs and feels smaller changes. Two graphs of evaluation and seven of test stand
in training too, written down alike.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from workloads.binary_classification import CLASSES, BinaryClassification
from workloads.graph.model import GIN, GINSettings

FILE = "graphs_tu/NCI1.txt"
TAGS = 37
NODES = 111  # of the largest graph
NEIGHBOURS = 4  # of the best connected node
ABSENT = -1
DEPTH = 4
HELD_OUT_SHARE = 10  # one in so many of a class, in evaluation and again in test
SPLIT_SEED = 4110


def read_graphs(path: Path) -> tuple[Tensor, Tensor]:
    """Return graphs int16 [N, NODES, 1 + NEIGHBOURS] and labels int64 [N] of a file of text.

    The number of graphs; then of each a line `nodes label`, and of each of its nodes a line
    `tag n` and the n numbers of its neighbours, from 0. What there is none of is `ABSENT`.

    Raises:
        ValueError: it is no such file, or a graph is larger than there is room for.
    """
    lines = iter(path.read_text(encoding="ascii").splitlines())
    try:
        count = int(next(lines))
        graphs = torch.full((count, NODES, 1 + NEIGHBOURS), ABSENT, dtype=torch.int16)
        labels = torch.empty(count, dtype=torch.int64)
        for graph in range(count):
            nodes, label = map(int, next(lines).split())
            rows = [[int(word) for word in next(lines).split()] for _ in range(nodes)]
            for row in rows:
                tag, degree, *neighbours = row
                if len(neighbours) != degree or not 0 <= tag < TAGS:
                    raise ValueError
                if not all(0 <= neighbour < nodes for neighbour in neighbours):
                    raise ValueError
            padded = [
                [tag, *neighbours] + [ABSENT] * (NEIGHBOURS - len(neighbours))
                for tag, _, *neighbours in rows
            ]
            graphs[graph, :nodes] = torch.tensor(padded, dtype=torch.int16)
            labels[graph] = label
        if next(lines, None) is not None or labels.min() < 0 or labels.max() >= CLASSES:
            raise ValueError
    except (ValueError, RuntimeError, StopIteration):
        raise ValueError(
            f"{path} is no list of graphs of at most {NODES} nodes with {TAGS} tags and "
            f"{NEIGHBOURS} neighbours"
        ) from None
    return graphs, labels


class GraphNCI1(BinaryClassification):
    """Graphs as `GIN` reads them."""

    inputs = "graphs"
    head_parameters: ClassVar[frozenset[str]] = frozenset(
        f"heads.{layer}.{kind}" for layer in range(DEPTH + 1) for kind in ("weight", "bias")
    )

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `graphs` int16 [N, 111, 5], `labels` int64 [N].

        The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        graphs, labels = read_graphs(self.path(FILE))
        random = np.random.RandomState(SPLIT_SEED)
        split = torch.zeros(len(labels), dtype=torch.int64)
        for label in range(CLASSES):
            (ids,) = torch.nonzero(labels == label, as_tuple=True)
            ids = ids[torch.from_numpy(random.permutation(len(ids)))]
            held_out = -(-len(ids) // HELD_OUT_SHARE)
            split[ids[:held_out]] = 1
            split[ids[held_out : 2 * held_out]] = 2
        return {
            name: {"graphs": graphs[split == part], "labels": labels[split == part]}
            for part, name in enumerate(("training", "evaluation", "test"))
        }

    def build_model(self) -> nn.Module:
        return GIN(tags=TAGS, classes=CLASSES, depth=DEPTH, settings=self.settings(GINSettings))

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return chains of thirty nodes, as large as a molecule is, with uniform tags."""
        device, nodes = generator.device, 30
        graphs = torch.full(
            (batch_size, NODES, 1 + NEIGHBOURS), ABSENT, dtype=torch.int16, device=device
        )
        chain = torch.arange(nodes, dtype=torch.int16, device=device)
        tags = torch.randint(TAGS, (batch_size, nodes), generator=generator, device=device)
        graphs[:, :nodes, 0] = tags.short()
        graphs[:, 1:nodes, 1] = chain[:-1]
        graphs[:, : nodes - 1, 2] = chain[1:]
        labels = torch.randint(CLASSES, (batch_size,), generator=generator, device=device)
        return graphs, labels
