"""Recurrent networks that decide a position at every date from what is known by then.

The cells are spelled out in linear layers: a method that needs modules finds every product of
weights and inputs, and derivatives of any order exist on every device.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings

GATES = {"lstm": 4, "gru": 3, "elman": 1}


class HedgeSettings(ModelSettings, frozen=True, kw_only=True):
    """Units of the state, the cell, and the LSTM's bias towards remembering."""

    width: int = 48
    cell: Literal["lstm", "gru", "elman"] = "lstm"
    forget_bias: float = 1.0


class HedgingNetwork(nn.Module):
    """What is known at each date [B, D, F] → positions in (0, 1) and a level, [B, D + 1].

    The level is the same for every path: the constant of a risk that is itself a minimum over
    constants, learned beside the hedge.
    """

    def __init__(self, features: int, settings: HedgeSettings) -> None:
        super().__init__()
        self.width, self.cell = settings.width, settings.cell
        rows = GATES[settings.cell] * settings.width
        self.read = nn.Linear(features, rows)
        self.recur = nn.Linear(settings.width, rows, bias=False)
        self.head = nn.Linear(settings.width, 1)
        self.level = nn.Parameter(torch.zeros(1))
        if settings.cell == "lstm":
            with torch.no_grad():
                self.read.bias[settings.width : 2 * settings.width] += settings.forget_bias

    def forward(self, known: Tensor) -> Tensor:
        seen = self.read(known)
        state = known.new_zeros(len(known), self.width)
        memory = state
        states = []
        for now in seen.unbind(dim=1):
            state, memory = self._step(now, state, memory)
            states.append(state)
        positions = torch.sigmoid(self.head(torch.stack(states, dim=1))).squeeze(2)
        return torch.cat((positions, self.level.expand(len(known), 1)), dim=1)

    def _step(self, now: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state and memory [B, W] after `now` [B, gates × W] was read."""
        recurrent = self.recur(state)
        if self.cell == "lstm":  # Hochreiter & Schmidhuber 1997, with forget gates
            gates = now + recurrent
            admit, forget, show = torch.sigmoid(gates[:, : 3 * self.width]).chunk(3, dim=1)
            memory = forget * memory + admit * torch.tanh(gates[:, 3 * self.width :])
            return show * torch.tanh(memory), memory
        if self.cell == "gru":  # Cho et al. 2014, the reset gate behind the product as in cuDNN
            w = 2 * self.width
            reset, keep = torch.sigmoid(now[:, :w] + recurrent[:, :w]).chunk(2, dim=1)
            proposal = torch.tanh(now[:, w:] + reset * recurrent[:, w:])
            return keep * state + (1 - keep) * proposal, memory
        return torch.tanh(now + recurrent), memory  # Elman 1990
