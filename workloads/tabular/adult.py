"""tabular/adult: whose income is above 50,000 dollars, from a census of 1994.

UCI's Adult (Becker and Kohavi 1996): 32,561 people to train on and 16,281 to test on, six
numeric and eight categorical columns. A fifth of the training part is set aside for evaluation,
the share that Gorishniy et al. 2021 (2106.11959) take. Three in four earn less, so that
accuracy says little about the rest; what decides is the area under the ROC curve.

The official files hold a few people twice: 10 rows of evaluation and 20 of test stand in
training too.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from workloads.binary_classification import CLASSES, BinaryClassification
from workloads.tabular.breast_cancer import quantiles
from workloads.tabular.model import TabularNet, TabularSettings

COLUMNS = 15  # of the files, the last being the class
NUMERIC = (0, 2, 4, 10, 11, 12)
CATEGORICAL = (1, 3, 5, 6, 7, 8, 9, 13)
LEVELS = (9, 16, 7, 15, 6, 5, 2, 42)  # of the categorical columns; `?`, unknown, is one
ANSWERS = ("<=50K", ">50K")
EVALUATION_SHARE = 5  # one in so many of the official training part
SPLIT_SEED = 32_561


def read_people(path: Path) -> list[list[str]]:
    """Return each person's columns as text, the class as in `ANSWERS`.

    Columns stand between commas; the test part begins with a remark (`|…`) and writes a full stop
    behind the class.

    Raises:
        ValueError: a row has other columns.
    """
    people = []
    for line in path.read_text(encoding="ascii").splitlines():
        if not line or line.startswith("|"):
            continue
        columns = [column.strip() for column in line.removesuffix(".").split(",")]
        if len(columns) != COLUMNS or columns[-1] not in ANSWERS:
            raise ValueError(f"{path} has a row that is no person: {line[:60]!r}")
        people.append(columns)
    return people


class BinaryRows(BinaryClassification):
    """Rows float32 [N, C], numeric columns before categorical ones."""

    inputs = "rows"
    numeric: ClassVar[int]
    levels: ClassVar[tuple[int, ...]]  # of the categorical columns
    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def build_model(self) -> nn.Module:
        return TabularNet(
            numeric=self.numeric,
            levels=self.levels,
            outputs=CLASSES,
            settings=self.settings(TabularSettings),
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normal columns, uniform levels and uniform labels."""
        device = generator.device
        columns = [torch.randn(batch_size, self.numeric, generator=generator, device=device)]
        columns += [
            torch.randint(levels, (batch_size, 1), generator=generator, device=device).float()
            for levels in self.levels
        ]
        labels = torch.randint(CLASSES, (batch_size,), generator=generator, device=device)
        return torch.cat(columns, dim=1), labels


class TabularAdult(BinaryRows):
    """Numeric columns as quantiles among the training rows, categorical ones as levels."""

    numeric = len(NUMERIC)
    levels = LEVELS

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `rows` float32 [N, 14], `labels` int64 [N].

        Levels are numbered in the order of their names in the official training part. The
        `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        official = [self.path(f"adult/adult.{part}") for part in ("data", "test")]
        people, tested = map(read_people, official)
        shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(people))
        aside = len(people) // EVALUATION_SHARE
        ids = {
            "training": np.sort(shuffled[aside:]),
            "evaluation": np.sort(shuffled[:aside]),
            "test": len(people) + np.arange(len(tested)),
        }
        everyone = np.array(people + tested)
        numbers = quantiles(everyone[:, NUMERIC].astype(np.float64), ids["training"])
        levels = []
        for column in CATEGORICAL:
            names = sorted({person[column] for person in people})
            levels.append([names.index(name) for name in everyone[:, column]])
        rows = np.concatenate((numbers, np.stack(levels, axis=1)), axis=1).astype(np.float32)
        labels = (everyone[:, -1] == ANSWERS[1]).astype(np.int64)
        return {
            name: {
                "rows": torch.from_numpy(rows[chosen]),
                "labels": torch.from_numpy(labels[chosen]),
            }
            for name, chosen in ids.items()
        }
