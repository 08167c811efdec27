"""scikit-learn's handwritten digits, and distorted copies of them that are exact to the byte.

The images are the 1,797 digits of 8×8 pixels that scikit-learn bundles (Alpaydin & Kaynak
1998, UCI "Optical Recognition of Handwritten Digits", test part). Nothing is downloaded.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.random import RandomState

CLASSES = 10
PIXELS = 8  # height and width of an image
LEVELS = 16  # grey levels are 0 … 16 in the source
HELD_OUT_PER_CLASS = 40  # base images of each class, in evaluation and again in test

# A distortion is x ↦ (1 + M)x + t with entries in units of 1/64: of the coordinate itself in
# M, of half the image's side (so 1/16 pixel) in t.
UNIT = 64


def base_images() -> tuple[Tensor, Tensor]:
    """Return images float32 [1797, 1, 8, 8] in 0 … 1 and labels int64 [1797] in 0 … 9."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32))[:, None] / LEVELS
    return images, torch.from_numpy(digits.target.astype(np.int64))


def split_ids(labels: Tensor, random: "RandomState") -> dict[str, Tensor]:
    """Return the base images of each split: 997 to train on, 400 and 400 held out.

    Split by class; the classes are exactly balanced in evaluation and test. The `RandomState`
    streams are frozen by NumPy (NEP 19), `Generator`'s are not.
    """
    members: dict[str, list[Tensor]] = {"training": [], "evaluation": [], "test": []}
    for label in range(CLASSES):
        ids = torch.from_numpy(random.permutation((labels == label).nonzero().flatten().numpy()))
        k = HELD_OUT_PER_CLASS
        members["evaluation"].append(ids[:k])
        members["test"].append(ids[k : 2 * k])
        members["training"].append(ids[2 * k :])
    return {name: torch.cat(parts).sort().values for name, parts in members.items()}


def random_distortions(
    random: "RandomState", n: int, matrix_range: int, shift_range: int
) -> tuple[Tensor, Tensor]:
    """Return n matrices [n, 2, 2] and shifts [n, 2], uniform integers within ± the ranges."""
    matrix = random.randint(-matrix_range, matrix_range + 1, size=(n, 2, 2))
    shift = random.randint(-shift_range, shift_range + 1, size=(n, 2))
    return torch.from_numpy(matrix), torch.from_numpy(shift)


def draw_distortions(
    n: int, matrix_range: int, shift_range: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the like, drawn for one batch on the generator's device."""
    draw = partial(torch.randint, generator=generator, device=generator.device)
    matrix = draw(-matrix_range, matrix_range + 1, (n, 2, 2))
    return matrix, draw(-shift_range, shift_range + 1, (n, 2))


def distort(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample images [B, 1, 8, 8] under integer distortions `matrix` [B, 2, 2], `shift` [B, 2].

    Bilinear, zeros outside. Every coordinate, weight and grey level is a multiple of a
    power of two that fits float32, so the result is exact, hence the same to the byte on
    every processor and in every order of summation.
    """
    steps = torch.arange(PIXELS, device=images.device, dtype=images.dtype)
    centres = (2 * steps + 1 - PIXELS) / PIXELS  # in -1 … 1, as `grid_sample` counts
    y, x = centres[:, None], centres[None, :]
    m = (matrix / UNIT)[:, :, :, None, None]
    t = (shift / UNIT)[:, :, None, None]
    grid = torch.stack(
        (
            x + (m[:, 0, 0] * x + m[:, 0, 1] * y) + t[:, 0],
            y + (m[:, 1, 0] * x + m[:, 1, 1] * y) + t[:, 1],
        ),
        dim=-1,
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
