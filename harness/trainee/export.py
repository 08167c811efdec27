"""Writes parameters and buffers into the shared file, as safetensors."""

import os
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor


def export_weights(weights: Mapping[str, Tensor], descriptor: int) -> int:
    """Write the weights to the file behind `descriptor`; return the size in bytes."""
    copies = {
        # safetensors refuses views that overlap; a copy off the clock costs nobody anything.
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in weights.items()
    }
    content = memoryview(save(copies))
    os.ftruncate(descriptor, len(content))
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    return len(content)
