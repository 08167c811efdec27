"""GBNN: a hidden layer built a few units at a time, by gradient boosting.

Emami & Martínez-Muñoz 2023, "Sequential Training of Neural Networks With Gradient Boosting",
IEEE Access 11, arXiv 1909.12098. With L the loss and F the outputs so far,

    F₀ = argmin over constants c of Σ L(y, c)                       the head's bias
    r = -∂L/∂F                                                      one-hot - softmax(F), say
    h = the J-unit network that minimises Σ |r - h(x)|², on a random subsample
    ρ = a Newton step for Σ L(y, F + ρ h) from ρ = 0: -φ'(0) ÷ φ''(0)
    F ← F + ν ρ h                                                   for t = 1 … T

Every h goes into the model's own layers as J further units, its output weights times νρ; units
not yet used are zero. h is fitted by L-BFGS from a random start.

Defaults of the authors' code: J = 1, ν = 1, half of the data, at most 200 iterations of L-BFGS.
Differences from it: the constant is the minimiser, as in the paper (there 0 for several classes);
φ'' is exact (there without the terms between classes, which makes ρ up to twice as long); no
weight decay in the fit (there 1e-4 ÷ n).

A gradient of a fit is a step and counts its passes; the model of the stages completed is what
stands to evaluation meanwhile. The examples of a fit are drawn by the data policy; their inputs
must be the same whenever an id is drawn, since F is kept by id. The recipe's optimizer and
schedule have no part in this.

After the last stage the method is at its end: the network is scored on the training data, one
pass a step, until it has surely been evaluated twice, and the run finishes. Training the merged
network on would be another method.
"""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.session import Batch, Procedure, Selection, Session


def hidden_and_head(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the hidden layer and the head by name, in this order.

    Raises:
        ValueError: the model is no perceptron with one hidden layer and biases.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    owned = {f"{name}.{own}" for name in layers for own in ("weight", "bias")}
    present = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    if len(layers) != 2 or owned != present:
        raise ValueError(
            "gbnn: needs two linear layers with biases and nothing else that has weights; "
            f"{type(model).__name__} has {', '.join(sorted(present)) or 'none'}"
        )
    hidden, head = layers.values()
    if hidden.out_features != head.in_features:
        raise ValueError(
            f"gbnn: the second linear layer must read the {hidden.out_features} units of the "
            f"first, and reads {head.in_features}"
        )
    return layers


def weak_learner(model: nn.Module, units: int) -> nn.Module:
    """Return `model` with so many hidden units, freshly drawn; the activation is its own."""
    learner = copy.deepcopy(model)
    (hidden_name, hidden), (head_name, head) = hidden_and_head(model).items()
    for name, inputs, outputs in (
        (hidden_name, hidden.in_features, units),
        (head_name, units, head.out_features),
    ):
        layer = nn.Linear(inputs, outputs, device=head.weight.device, dtype=head.weight.dtype)
        learner.set_submodule(name, layer)
    return learner


def minimiser(parameters: Iterable[Tensor], iterations: int) -> torch.optim.LBFGS:
    """Return L-BFGS that all but leaves the end to the number of iterations.

    Residuals shrink from stage to stage, and absolute tolerances would stop late fits early.
    """
    return torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        tolerance_grad=1e-10,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )


def best_constant(session: Session, outputs: Tensor, batch: Batch) -> Tensor:
    """Return the outputs [K] that minimise the mean loss if every example has them."""
    constant = outputs.new_zeros(outputs.shape[1:], requires_grad=True)
    optimizer = minimiser([constant], iterations=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = session.per_example_loss(constant.expand_as(outputs), batch).mean()
        loss.backward()  # no pass of a model
        return loss

    optimizer.step(closure)
    return constant.detach()


def pseudo_residuals(session: Session, outputs: Tensor, batch: Batch) -> Tensor:
    """Return -∂L/∂F [N, K] at the outputs [N, K]; the session hears of the losses."""
    leaf = outputs.detach().requires_grad_()
    losses = session.per_example_loss(leaf, batch)
    session.loss(losses.detach(), batch)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return -gradient


def newton_step(session: Session, outputs: Tensor, direction: Tensor, batch: Batch) -> Tensor:
    """Return the scalar -φ'(0) ÷ φ''(0) for φ(ρ) = Σ L(y, outputs + ρ direction)."""
    rho = outputs.new_zeros((), requires_grad=True)
    loss = session.per_example_loss(outputs + rho * direction, batch).sum()
    (slope,) = torch.autograd.grad(loss, rho, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, rho)
    # Both are 0 where the direction changes no loss.
    return -slope.detach() / curvature.clamp_min(torch.finfo(rho.dtype).tiny)


class GBNN(Procedure):
    """GBNN. `units` is J, `shrinkage` is ν.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        *,
        units: int = 1,
        shrinkage: float = 1.0,
        subsample: float = 0.5,
        iterations: int = 200,
    ) -> None:
        for name, whole in {"units": units, "iterations": iterations}.items():
            if not whole >= 1:
                raise ValueError(f"gbnn: {name} must be at least 1, not {whole!r}")
        for name, value in {"shrinkage": shrinkage, "subsample": subsample}.items():
            if not 0 < value <= 1:
                raise ValueError(f"gbnn: {name} must be in (0, 1], not {value!r}")
        self._units = units
        self._shrinkage = shrinkage
        self._subsample = subsample
        self._iterations = iterations

    def train(self, session: Session, model: nn.Module) -> None:
        hidden, head = hidden_and_head(model).values()
        data = session.examples_of(Selection(ids=session.training_ids))
        rows = data.ids.new_zeros(session.training_examples)  # where in `data` an id stands
        rows[data.ids] = torch.arange(data.size, device=rows.device)

        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        outputs = head.weight.new_zeros(data.size, head.out_features)
        constant = best_constant(session, outputs, data)
        outputs += constant
        with torch.no_grad():
            head.bias.copy_(constant)

        for start in range(0, hidden.out_features, self._units):
            group = slice(start, min(start + self._units, hidden.out_features))
            learner = weak_learner(model, group.stop - group.start)
            residuals = pseudo_residuals(session, outputs, data)
            drawn = self._draw(session)
            self._fit(session, learner, drawn, residuals[rows[drawn.ids]], model)
            with torch.no_grad():
                h = session.outputs(learner, data)
            step = self._shrinkage * newton_step(session, outputs, h, data)
            outputs += step * h
            _merge(learner, model, group, step)

        for _ in range(math.ceil(session.horizon_examples / data.size)):
            session.score(model, session.training_ids)
            session.maybe_evaluate(model)

    def _draw(self, session: Session) -> Batch:
        """Return the examples of one fit: as many batches as the subsample has."""
        wanted = self._subsample * len(session.training_ids)
        batches = [session.batch()]
        while sum(batch.size for batch in batches) + session.batch_size / 2 <= wanted:
            batches.append(session.batch())
        weights = [b.weights for b in batches if b.weights is not None]
        return Batch(
            ids=torch.cat([b.ids for b in batches]),
            inputs=torch.cat([b.inputs for b in batches]),
            targets=torch.cat([b.targets for b in batches]),
            weights=torch.cat(weights) if weights else None,
        )

    def _fit(
        self,
        session: Session,
        learner: nn.Module,
        batch: Batch,
        residuals: Tensor,
        model: nn.Module,
    ) -> None:
        """Fit the learner to the residuals [n, K]; `model` is what stands to evaluation."""
        optimizer = minimiser(learner.parameters(), iterations=self._iterations)

        def closure() -> Tensor:
            optimizer.zero_grad()
            errors = (session.outputs(learner, batch) - residuals).square().mean(dim=1)
            loss = session.probe_loss(errors, batch)
            session.backward(loss, batch.size)
            session.maybe_evaluate(model)
            return loss.detach()

        optimizer.step(closure)


@torch.no_grad()
def _merge(learner: nn.Module, model: nn.Module, group: slice, step: Tensor) -> None:
    """Put the learner's units into the model's unused ones, output weights times `step`."""
    new_hidden, new_head = hidden_and_head(learner).values()
    hidden, head = hidden_and_head(model).values()
    hidden.weight[group] = new_hidden.weight
    hidden.bias[group] = new_hidden.bias
    head.weight[:, group] = step * new_head.weight
    head.bias.add_(step * new_head.bias)
