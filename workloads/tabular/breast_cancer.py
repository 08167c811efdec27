"""tabular/breast-cancer: fill in the hidden third of a real table's columns.

The rows are the 569 patients of the Wisconsin Diagnostic Breast Cancer data (Street, Wolberg &
Mangasarian 1993; UCI) that scikit-learn bundles: thirty measurements of cell nuclei each, and the
diagnosis. So few rows make a poor classification benchmark: a hundred held-out patients of whom
five are misjudged tell no two recipes apart. Filling in columns is a task with thirty answers a
row, the columns depend on each other smoothly and closely, and a row can be asked about in many
ways. An example is a row with ten of its columns hidden, always the same ten for one id.

What is measured is the squared error on patients never trained on. These are real but few (120):
the metric compares recipes on one fixed sample, it is no estimate for all patients.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from harness.workload import Workload
from workloads.tabular.model import TabularNet, TabularSettings

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import NDArray

COLUMNS = 30
HIDDEN = 10  # columns hidden in an example
HELD_OUT_PER_CLASS = 60  # patients of each diagnosis, in evaluation and again in test
COPIES = {"training": 24, "evaluation": 24, "test": 24}  # choices of what is hidden, for each row
DIAGNOSES = 2
UNKNOWN = DIAGNOSES  # the level of a diagnosis that is hidden, as every third one is
SPLIT_SEED = 569
EVALUATION_BATCH = 256


def quantiles(table: "NDArray[Any]", training_rows: "NDArray[Any]") -> "NDArray[Any]":
    """Return float64 [N, C]: each value's quantile among the training rows, as ±√3 at the ends.

    The training rows are spread evenly, with mean 0 and variance 1 but for ties, which share
    their middle. Ranks are whole numbers and IEEE divides and multiplies alike everywhere:
    the same bits on every processor.
    """
    import numpy as np

    columns = []
    for column in table.T:
        seen = np.sort(column[training_rows])
        below = np.searchsorted(seen, column, side="left")
        not_above = np.searchsorted(seen, column, side="right")
        columns.append((below + not_above - len(seen)) / len(seen) * math.sqrt(3))
    return np.stack(columns, axis=1)


def split_rows(diagnoses: "NDArray[Any]", random: "RandomState") -> dict[str, "NDArray[Any]"]:
    """Return each split's rows; evaluation and test hold as many of either diagnosis."""
    import numpy as np

    parts: dict[str, list[NDArray[Any]]] = {"training": [], "evaluation": [], "test": []}
    for diagnosis in range(DIAGNOSES):
        rows = random.permutation(np.flatnonzero(diagnoses == diagnosis))
        held_out = rows[: 2 * HELD_OUT_PER_CLASS]
        parts["evaluation"].append(held_out[:HELD_OUT_PER_CLASS])
        parts["test"].append(held_out[HELD_OUT_PER_CLASS:])
        parts["training"].append(rows[2 * HELD_OUT_PER_CLASS :])
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


class BreastCancer(Workload):
    """Trains on the squared errors of hidden columns, in units of each column's variance."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: what a row holds and what of it is hidden.

        `values` float32 [N, 30] as quantiles, `hidden` float32 [N, 30] with ones where a column
        is hidden, `diagnoses` float32 [N, 1] with levels as asked (`UNKNOWN` where hidden).
        The copies of one row stand together, and all in one split. The `RandomState` streams are
        frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np
        from sklearn.datasets import load_breast_cancer

        table = load_breast_cancer()
        random = np.random.RandomState(SPLIT_SEED)
        split = split_rows(table.target, random)
        values = quantiles(table.data, split["training"])
        splits = {}
        for name, distinct in split.items():
            rows = np.repeat(distinct, COPIES[name])
            order = [random.permutation(COLUMNS) for _ in rows]
            shown = random.randint(3, size=len(rows)) > 0
            splits[name] = {
                "values": torch.from_numpy(values[rows].astype(np.float32)),
                "hidden": torch.from_numpy((np.stack(order) < HIDDEN).astype(np.float32)),
                "diagnoses": torch.from_numpy(
                    np.where(shown, table.target[rows], UNKNOWN).astype(np.float32)[:, None]
                ),
            }
        return splits

    def build_model(self) -> nn.Module:
        return TabularNet(
            numeric=2 * COLUMNS,
            levels=(DIAGNOSES + 1,),
            outputs=COLUMNS,
            settings=self.settings(TabularSettings),
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - what is hidden belongs to the example
    ) -> tuple[Tensor, Tensor]:
        """Return rows as the model reads them and what it is asked for, float32.

        Inputs [B, 61]: the columns, 0 (their mean) where hidden; ones where hidden; the level
        of the diagnosis. Targets [B, 2, 30]: the columns, and ones where they count.
        """
        return ask(
            data["values"].index_select(0, indices),
            data["hidden"].index_select(0, indices),
            data["diagnoses"].index_select(0, indices),
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normal columns of which ten are hidden, on the generator's device."""
        device, shape = generator.device, (batch_size, COLUMNS)
        values = torch.randn(shape, generator=generator, device=device)
        order = torch.rand(shape, generator=generator, device=device).argsort(dim=1)
        levels = torch.randint(DIAGNOSES + 1, (batch_size, 1), generator=generator, device=device)
        return ask(values, (order < HIDDEN).float(), levels.float())

    def per_example_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float,  # noqa: ARG002 - there are no classes to smooth
    ) -> Tensor:
        """Return the mean squared error of each example's hidden columns, shape [B]."""
        values, counted = targets.unbind(dim=1)
        return ((outputs - values).square() * counted).sum(dim=1) / counted.sum(dim=1)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `squared_error`, the mean loss over the split.

        In units of the columns' variances among the training rows: about 1 for who answers
        the mean.
        """
        total = torch.zeros((), dtype=torch.float64, device=data["values"].device)
        names = ("values", "hidden", "diagnoses")
        for batch in zip(*(data[name].split(EVALUATION_BATCH) for name in names), strict=True):
            inputs, targets = ask(*batch)
            losses = self.per_example_loss(model(inputs).float(), targets, label_smoothing=0.0)
            total += losses.double().sum()
        return {"squared_error": total.item() / len(data["values"])}


def ask(values: Tensor, hidden: Tensor, diagnoses: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs [B, 61] and targets [B, 2, 30] of rows with `hidden` columns."""
    inputs = torch.cat((values * (1 - hidden), hidden, diagnoses), dim=1)
    return inputs, torch.stack((values, hidden), dim=1)
