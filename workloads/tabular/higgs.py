"""tabular/higgs: collisions that made a Higgs boson, told from background by 28 measurements.

The 7,000 and 500 rows of HIGGS (Baldi, Sadowski and Whiteson 2014; UCI) that LightGBM ships as
its example of binary classification: a small slice of the eleven million, so that figures
published for those are no measure of it. A thousand rows of the training part are evaluation,
the other 500 are test.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workloads.tabular.adult import BinaryRows
from workloads.tabular.breast_cancer import quantiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 28
EVALUATION_ROWS = 1_000
SPLIT_SEED = 7_000


def read_collisions(path: Path) -> "NDArray[Any]":
    """Return float64 [N, 29]: the class, 0 or 1, and the measurements; tabs between.

    Raises:
        ValueError: it has other columns or classes.
    """
    import numpy as np

    table = np.loadtxt(path, delimiter="\t", ndmin=2)
    if table.shape[1] != 1 + COLUMNS or not np.isin(table[:, 0], (0, 1)).all():
        raise ValueError(f"{path} does not hold a class and {COLUMNS} measurements a line")
    return table


class TabularHiggs(BinaryRows):
    """Columns as quantiles among the training rows."""

    numeric = COLUMNS
    levels = ()

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `rows` float32 [N, 28], `labels` int64 [N].

        The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        official = [self.path(f"higgs_7k/binary.{part}") for part in ("train", "test")]
        known, tested = map(read_collisions, official)
        shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(known))
        ids = {
            "training": np.sort(shuffled[EVALUATION_ROWS:]),
            "evaluation": np.sort(shuffled[:EVALUATION_ROWS]),
            "test": len(known) + np.arange(len(tested)),
        }
        table = np.concatenate((known, tested))
        rows = quantiles(table[:, 1:], ids["training"]).astype(np.float32)
        labels = table[:, 0].astype(np.int64)
        return {
            name: {
                "rows": torch.from_numpy(rows[chosen]),
                "labels": torch.from_numpy(labels[chosen]),
            }
            for name, chosen in ids.items()
        }
