"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, 1708.07747): 28×28 grey images of ten garments."""

import torch
from torch import Tensor

from workloads.image_files import ByteImages, read_idx, set_aside

SPLIT_SEED = 60_000
HELD_OUT_PER_CLASS = 500  # of the official training part, in evaluation


class FashionMNIST(ByteImages):
    """Evaluation is a tenth of the official training part, test the official test part."""

    classes = 10
    image_shape = (1, 28, 28)
    mean = (73.0,)
    deviation = (90.0,)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` uint8 [N, 1, 28, 28], `labels` int64 [N]."""
        import numpy as np

        images, labels = self._official("train")
        kept, aside = set_aside(labels, HELD_OUT_PER_CLASS, np.random.RandomState(SPLIT_SEED))
        test_images, test_labels = self._official("t10k")
        return {
            "training": {"images": images[kept], "labels": labels[kept]},
            "evaluation": {"images": images[aside], "labels": labels[aside]},
            "test": {"images": test_images, "labels": test_labels},
        }

    def _official(self, part: str) -> tuple[Tensor, Tensor]:
        images = read_idx(self.path(f"fashion_mnist/{part}-images-idx3-ubyte.gz"))
        labels = read_idx(self.path(f"fashion_mnist/{part}-labels-idx1-ubyte.gz"))
        return images[:, None].contiguous(), labels.to(torch.int64)
