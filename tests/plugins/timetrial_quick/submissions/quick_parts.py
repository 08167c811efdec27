"""One small submission for every place; each says on the output what a test wants to know."""

import copy
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.session import (
    Averaging,
    Data,
    Factors,
    LossObserver,
    LossWeigher,
    Parameterization,
    Procedure,
    Schedule,
    Selection,
    Session,
    SetsHorizon,
)


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


def digest(tensors: Sequence[Tensor]) -> str:
    content = b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]


class LateGrowth(Schedule):
    """Half the learning rate and twice the batch, once a tenth of the horizon is over."""

    def __init__(self, *, session: Session) -> None:
        self._session = session

    def __call__(self, progress: float) -> Factors:
        if self._session.last_batch is not None:
            say("batch", self._session.last_batch.size)
        if progress <= 0.1:
            return Factors()
        return Factors(learning_rate=0.5, batch_size=2.0)


class Backwards(Data, LossObserver, LossWeigher, SetsHorizon):
    """The ids from the last to the first, again and again; a horizon of three quarters."""

    def __init__(self, *, session: Session, held_out: float) -> None:
        self._session = session
        self._held = set(session.holdout(held_out).tolist())

    def batches(self) -> Iterator[Selection]:
        ids = self._session.training_ids.flip(0)
        position = 0
        while True:
            size = self._session.batch_size
            yield Selection(ids=ids.roll(-position)[:size])
            position += size

    def observe(self, ids: Tensor, losses: Tensor) -> None:
        assert ids.shape == losses.shape
        say("observed", self._session.steps, bool(self._held & set(ids.tolist())))

    def weigh(self, ids: Tensor, losses: Tensor) -> Tensor:
        return torch.ones_like(losses)

    def horizon_examples(self, recipe_horizon: int) -> int:
        say("horizon", recipe_horizon)
        return recipe_horizon * 3 // 4


class LastFew(Averaging):
    """The mean of the last few weights; says what is trained after every step."""

    def __init__(self, *, model: nn.Module, optimizer: torch.optim.Optimizer, window: int) -> None:
        self._parameters = list(model.parameters())
        self._optimizer = optimizer
        self._few: deque[list[Tensor]] = deque(maxlen=window)

    def update(self) -> None:
        self._few.append([p.detach().clone() for p in self._parameters])
        state = [t for s in self._optimizer.state.values() for t in s.values()]
        say("trained", digest([*self._parameters, *filter(torch.is_tensor, state)]))

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        kept = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for p, *weights in zip(self._parameters, *self._few, strict=True):
                p.copy_(torch.stack(weights).mean(dim=0))
            say("evaluated", digest(self._parameters))
            yield
            for p, before in zip(self._parameters, kept, strict=True):
                p.copy_(before)


class HalvedLinear(nn.Module):
    """A linear layer whose weight is the sum of two parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.one = nn.Parameter(linear.weight.detach() / 2)
        self.other = nn.Parameter(linear.weight.detach() / 2)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.one + self.other, self.bias)


class Halves(Parameterization):
    """Trains two parameters for every weight."""

    def wrap(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, nn.Sequential)
        layers = [HalvedLinear(m) if isinstance(m, nn.Linear) else m for m in model]
        return nn.Sequential(*layers)

    def canonical_weights(self, model: nn.Module) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for name, module in model.named_children():
            if isinstance(module, HalvedLinear):
                weights[f"{name}.weight"] = module.one + module.other
                weights[f"{name}.bias"] = module.bias
        return weights


class HalvesAsTheyAre(Halves):
    """Forgets that the workload's model knows nothing of halves."""

    def canonical_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.named_parameters())


class PilotFirst(Procedure):
    """Trains a pilot, drops it, and then the model."""

    def __init__(self, *, pilot_steps: int) -> None:
        self._pilot_steps = pilot_steps

    def train(self, session: Session, model: nn.Module) -> None:
        pilot = session.build_model()
        untrained = copy.deepcopy(pilot)
        ids = session.training_ids[:100]
        training = session.training(pilot)
        for _ in range(self._pilot_steps):
            training.step()
        before, after = (session.score(m, ids).mean() for m in (untrained, pilot))
        say("pilot", bool(after < before), session.steps, session.examples)
        training = session.training(model)
        while True:
            training.step()
            session.maybe_evaluate(model)


class TwoFaces(torch.optim.SGD):
    """Shows weights of zero in eval mode, and trains those that it has learned.

    Like the optimizers of the ecosystem it insists on `train()`, also before the first step.
    """

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, lr=lr)
        self._kept: list[Tensor] | None = None
        self._trains = False
        say("start", digest(self._parameters()))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert self._trains, "train() was not called"
        super().step()

    def eval(self) -> None:
        assert self._kept is None
        self._trains = False
        self._kept = [p.detach().clone() for p in self._parameters()]
        for p in self._parameters():
            p.data.zero_()
        say("eval", digest(self._kept))

    def train(self) -> None:
        self._trains = True
        if self._kept is None:
            return
        for p, kept in zip(self._parameters(), self._kept, strict=True):
            p.data.copy_(kept)
        self._kept = None
        say("train", digest(self._parameters()))
