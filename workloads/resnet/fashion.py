"""resnet/fashion: a small ResNet on Fashion-MNIST."""

from torch import nn

from workloads.fashion_mnist import FashionMNIST
from workloads.resnet.digits import ResNetSettings
from workloads.resnet.model import ResNet

DEPTHS = (1, 1, 1)  # blocks of the stages, at 28×28, 14×14 and 7×7 pixels


class FashionSettings(ResNetSettings, frozen=True, kw_only=True):
    """As the family's; narrower, for images twelve times as large."""

    width: int = 8


class ResNetFashion(FashionMNIST):
    """Nothing is augmented: an example's id always means the same image."""

    def build_model(self) -> nn.Module:
        settings = self.settings(FashionSettings)
        return ResNet(
            in_channels=1,
            classes=self.classes,
            widths=tuple(settings.width * 2**stage for stage in range(len(DEPTHS))),
            depths=DEPTHS,
            activation=settings.activation,
            normalisation=settings.normalisation,
            initialisation=settings.initialisation,
        )
