"""resnet/cifar10: a ResNet on CIFAR-10 (Krizhevsky 2009), 32×32 colour images of ten classes."""

from torch import Tensor, nn

from workloads.image_files import (
    CIFAR_SHAPE,
    CIFAR_TEST,
    CIFAR_TRAINING,
    ByteImages,
    read_cifar10,
    set_aside,
)
from workloads.resnet.digits import ResNetSettings
from workloads.resnet.model import ResNet

ARCHIVE = "cifar10/cifar-10-binary.tar.gz"
SPLIT_SEED = 50_000
HELD_OUT_PER_CLASS = 500  # of the official training part, in evaluation
DEPTHS = (1, 1, 1)  # blocks of the stages, at 32×32, 16×16 and 8×8 pixels


class ResNetCIFAR10(ByteImages):
    """Evaluation is a tenth of the official training part, test the official test part.

    Nothing is augmented: an example's id always means the same image.
    """

    classes = 10
    image_shape = CIFAR_SHAPE
    mean = (125.0, 123.0, 114.0)
    deviation = (63.0, 62.0, 67.0)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` uint8 [N, 3, 32, 32], `labels` int64 [N]."""
        import numpy as np

        archive = self.path(ARCHIVE)
        images, labels = read_cifar10(archive, CIFAR_TRAINING)
        kept, aside = set_aside(labels, HELD_OUT_PER_CLASS, np.random.RandomState(SPLIT_SEED))
        test_images, test_labels = read_cifar10(archive, CIFAR_TEST)
        return {
            "training": {"images": images[kept], "labels": labels[kept]},
            "evaluation": {"images": images[aside], "labels": labels[aside]},
            "test": {"images": test_images, "labels": test_labels},
        }

    def build_model(self) -> nn.Module:
        settings = self.settings(ResNetSettings)
        return ResNet(
            in_channels=CIFAR_SHAPE[0],
            classes=self.classes,
            widths=tuple(settings.width * 2**stage for stage in range(len(DEPTHS))),
            depths=DEPTHS,
            activation=settings.activation,
            normalisation=settings.normalisation,
            initialisation=settings.initialisation,
        )
