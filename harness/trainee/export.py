"""Writes parameters and buffers into the shared file, as safetensors."""

import os

from safetensors.torch import save
from torch import nn

from harness.workload import canonical_weights


def export_weights(model: nn.Module, descriptor: int) -> int:
    """Write the weights to the file behind `descriptor`; return the size in bytes."""
    weights = {
        # safetensors refuses views that overlap; a copy off the clock costs nobody anything.
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in canonical_weights(model).items()
    }
    content = memoryview(save(weights))
    os.ftruncate(descriptor, len(content))
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    return len(content)
