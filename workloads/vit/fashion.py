"""vit/fashion: a small vision transformer on Fashion-MNIST."""

from torch import nn

from workloads.fashion_mnist import FashionMNIST
from workloads.vit.digits import ViTSettings
from workloads.vit.model import VisionTransformer

PATCH = 7  # height and width of a patch: 16 tokens
DEPTH = 3
HEADS = 4


class FashionSettings(ViTSettings, frozen=True, kw_only=True):
    """As the family's, with a width of its own."""

    width: int = 64


class ViTFashion(FashionMNIST):
    """Nothing is augmented: an example's id always means the same image."""

    def build_model(self) -> nn.Module:
        settings = self.settings(FashionSettings)
        return VisionTransformer(
            image_size=self.image_shape[-1],
            patch_size=PATCH,
            in_channels=1,
            classes=self.classes,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            pooling=settings.pooling,
        )
