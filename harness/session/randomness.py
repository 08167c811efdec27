"""The states of torch's global generators, the ones that a run on a device draws from."""

import torch
from torch import Tensor


def generator_states(device: torch.device) -> list[Tensor]:
    """Return the states; no wait for the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_generator_states(device: torch.device, states: list[Tensor]) -> None:
    """Put states back."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
