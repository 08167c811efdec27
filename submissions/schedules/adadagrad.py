"""AdAdaGrad: AdaGrad whose batch grows when the gradient's noise asks for it.

Lau, Liu and Kolar 2024, "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods",
arXiv 2402.11215. The norm test of Byrd et al. 2012 asks that the variance of the batch gradient
stay below a fraction η² of its squared norm. Every `test_interval` steps, with g_i the gradient of
example i and ḡ their mean over n examples of the batch:

    V = Σ_i ‖g_i - ḡ‖² / (n - 1)            = ‖Var_i(g_i)‖₁ over all weights
    b ← max(b, ⌈V / (η² ‖ḡ‖²)⌉), at most b_max

    v ← v + g²,  θ ← θ - lr g / (√v + ε)    AdaGrad, over the whole run

η = 0.5, lr 0.05, warm-up over a tenth of the examples and a cosine to a tenth of lr are the public
code's settings for ResNet-18 on CIFAR-10, where four devices start with 8 examples each. Batch
sizes here are multiples of the recipe's: from half of it to 8 times, never more than there is data.

- What the test costs is on the clock and counted: a forward and a backward pass of n examples, at
  most `test_examples`. Each example's gradient is as large as the model, so that they are taken
  in chunks: many small ones cost time, large ones memory.
- Batch norm ties examples together, so the gradients g_i are taken in evaluation mode: with the
  running statistics, without dropout. Both ḡ and V come from them, not from the training gradient.
- The public code tests a batch before its step; here it is the batch last trained on, after its
  step. A batch grows from one step to the next either way, and never shrinks.
- The test reads two numbers back from the device. No test is made once b is b_max.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim.optimizer import ParamsT

from harness.session import Batch, Factors, Schedule, Session

# Numbers in the per-example gradients held at once, 64 MB in float32. A ResNet of 78 k parameters,
# 64 examples, one thread: 0.10 s a test in one chunk, 0.18 s in four; a training step takes 0.02 s.
CHUNK_ELEMENTS = 2**24


class AdAdaGrad(Schedule):
    """Batch size by the norm test; learning rate by warm-up and cosine.

    Args:
        session: gives the batch to test, and counts the work.
        model: what is trained.
        eta: η, the tolerated ratio of noise to gradient.
        test_interval: steps from one test to the next.
        test_examples: how many examples of the batch a test looks at.
        initial_batch_factor: the first batch size ÷ the recipe's.
        max_batch_factor: b_max ÷ the recipe's batch size.
        warmup_fraction: the part of the horizon that warms up.
        final_lr_fraction: the learning rate's factor at progress 1.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        session: Session,
        model: nn.Module,
        eta: float = 0.5,
        test_interval: int = 10,
        test_examples: int = 64,
        initial_batch_factor: float = 0.5,
        max_batch_factor: float = 8.0,
        warmup_fraction: float = 0.1,
        final_lr_fraction: float = 0.1,
    ) -> None:
        _check("eta", eta, eta > 0, "above 0")
        _check("test_interval", test_interval, test_interval >= 1, "at least 1")
        _check("test_examples", test_examples, test_examples >= 2, "at least 2")
        _check("initial_batch_factor", initial_batch_factor, initial_batch_factor > 0, "above 0")
        legal = max_batch_factor >= initial_batch_factor
        _check("max_batch_factor", max_batch_factor, legal, "at least initial_batch_factor")
        _check("warmup_fraction", warmup_fraction, 0 <= warmup_fraction < 1, "in [0, 1)")
        _check("final_lr_fraction", final_lr_fraction, 0 <= final_lr_fraction <= 1, "in [0, 1]")
        self._session = session
        self._model = model
        self._eta = eta
        self._interval = test_interval
        self._examples = test_examples
        self._warmup = warmup_fraction
        self._final = final_lr_fraction
        self._recipe_batch = session.batch_size
        data = len(session.training_ids)
        self._max_batch = min(data, round(max_batch_factor * self._recipe_batch))
        first = max(1, round(initial_batch_factor * self._recipe_batch))
        self._batch = min(first, self._max_batch)

    def __call__(self, progress: float) -> Factors:
        steps, batch = self._session.steps, self._session.last_batch
        due = steps > 0 and steps % self._interval == 0 and self._batch < self._max_batch
        if due and batch is not None and batch.size > 1:
            self._batch = self._tested(batch)
        return Factors(
            learning_rate=self._learning_rate(progress),
            batch_size=self._batch / self._recipe_batch,
        )

    def _learning_rate(self, progress: float) -> float:
        if progress < self._warmup:
            return progress / self._warmup
        decayed = (progress - self._warmup) / (1 - self._warmup)
        return self._final + (1 - self._final) * 0.5 * (1 + math.cos(math.pi * decayed))

    def _tested(self, batch: Batch) -> int:
        examples = min(batch.size, self._examples)
        self._session.count(forward=examples, backward=examples)
        noise: list[float] = gradient_noise(self._session, self._model, batch, examples).tolist()
        variance, norm = noise
        needed = self._eta**2 * norm
        if not variance > self._batch * needed:  # the test holds, or a figure is not a number
            return self._batch
        if variance >= self._max_batch * needed:  # nor is there a quotient where needed is 0
            return self._max_batch
        return math.ceil(variance / needed)


def gradient_noise(session: Session, model: nn.Module, batch: Batch, examples: int) -> Tensor:
    """Return V and ‖ḡ‖² [2] over the first examples of a batch, without a sync."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: b.detach() for name, b in model.named_buffers()}

    def loss(weights: dict[str, Tensor], i: Tensor, x: Tensor, y: Tensor) -> Tensor:
        one = Batch(ids=i[None], inputs=x[None], targets=y[None], weights=None)
        outputs = functional_call(model, (weights, buffers), (one.inputs,))
        return session.per_example_loss(outputs, one).squeeze(0)

    per_example = vmap(grad(loss), in_dims=(None, 0, 0, 0))
    importance = None if batch.weights is None else batch.weights[:examples]
    means = [torch.zeros_like(p) for p in parameters.values()]
    squares = torch.zeros_like(means[0].sum())  # Σ_i ‖g_i‖²
    held = max(1, CHUNK_ELEMENTS // sum(p.numel() for p in means))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for start in range(0, examples, held):
            chunk = slice(start, min(start + held, examples))
            examined = batch.ids[chunk], batch.inputs[chunk], batch.targets[chunk]
            gs = [g.flatten(1) for g in per_example(parameters, *examined).values()]
            if importance is not None:  # the loss is a mean weighted by it
                gs = [g * (importance[chunk] / importance.mean()).unsqueeze(1) for g in gs]
            squares += torch.stack(torch._foreach_norm(gs)).square().sum()
            for mean, g in zip(means, gs, strict=True):
                mean.add_(g.sum(dim=0).view_as(mean), alpha=1 / examples)
    finally:
        for module, mode in modes.items():
            module.training = mode
    norm = torch.stack(torch._foreach_norm(means)).square().sum()
    return torch.stack([(squares - examples * norm) / (examples - 1), norm])


def gradient_noise_reference(
    session: Session, model: nn.Module, batch: Batch, examples: int
) -> Tensor:
    """Return what `gradient_noise` does, one example at a time; for a model in evaluation mode."""
    weights = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(examples):
        one = Batch(
            ids=batch.ids[i : i + 1],
            inputs=batch.inputs[i : i + 1],
            targets=batch.targets[i : i + 1],
            weights=None,
        )
        (loss,) = session.per_example_loss(model(one.inputs), one)
        gs = torch.autograd.grad(loss, weights, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in gs]).double())
    stacked = torch.stack(rows)  # [n, weights]
    if batch.weights is not None:
        importance = batch.weights[:examples]
        stacked *= (importance / importance.mean()).unsqueeze(1)
    return torch.stack([stacked.var(dim=0).sum(), stacked.mean(dim=0).square().sum()])


def _check(name: str, value: float, legal: bool, words: str) -> None:
    if not (legal and math.isfinite(value)):
        raise ValueError(f"AdAdaGrad: {name} must be {words}, not {value!r}")


class AdaGrad(torch.optim.Adagrad):
    """AdaGrad (Duchi et al. 2011) in a fused kernel. Raises ValueError for an illegal setting."""

    def __init__(
        self, params: ParamsT, lr: float = 0.05, weight_decay: float = 0.0, eps: float = 1e-10
    ) -> None:
        # Left to itself torch takes one tensor at a time on a CPU.
        super().__init__(params, lr=lr, weight_decay=weight_decay, eps=eps, fused=True)
