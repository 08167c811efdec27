"""Sophia-G against Algorithms 2 and 3 of Liu et al. 2024, written out element by element."""

import copy
import inspect
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import sophia
from submissions.optimizers.sophia import Sophia, sampled_cross_entropy

PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])
CLASSES, FEATURES = 3, 2


class FakeSession:
    """A session with one batch, which remembers what was counted."""

    def __init__(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        self.last_batch = SimpleNamespace(
            inputs=inputs, targets=targets, weights=weights, size=len(inputs)
        )
        self.forward = self.backward = 0

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        self.count(forward=batch.size, backward=0)
        return model(batch.inputs)  # type: ignore[no-any-return]

    def count(self, *, forward: int, backward: int) -> None:
        self.forward += forward
        self.backward += backward


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def linear_model() -> nn.Linear:
    model = nn.Linear(FEATURES, CLASSES).double()
    with torch.no_grad():
        model.weight.copy_(random(CLASSES, FEATURES))
        model.bias.copy_(random(CLASSES, seed=1))
    return model


def examples(weights: Tensor | None = None) -> FakeSession:
    return FakeSession(random(4, FEATURES, seed=2), torch.tensor([0, 1, 2, 0]), weights)


def sequences() -> FakeSession:
    targets = torch.tensor([[-100, 1, 2, 0], [-100, -100, -100, 1], [0, 0, 1, 2]])
    return FakeSession(
        random(3, 4, FEATURES, seed=2), targets, torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    )


def predictions(session: FakeSession) -> list[tuple[list[float], float]]:
    """Return input and cᵢ of every prediction, those that do not count included."""
    batch = session.last_batch
    targets = batch.targets.reshape(batch.size, -1).tolist()
    inputs = batch.inputs.reshape(batch.size, -1, FEATURES).tolist()
    weights = [1.0] * batch.size if batch.weights is None else batch.weights.tolist()
    found = []
    for b in range(batch.size):
        counted = sum(target != -100 for target in targets[b])
        for x, target in zip(inputs[b], targets[b], strict=True):
            c = weights[b] / sum(weights) / counted if target != -100 else 0.0
            found.append((x, c))
    return found


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def logits_of(w: list[list[float]], bias: list[float], x: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, x, strict=True)) + b0
            for row, b0 in zip(w, bias, strict=True)]  # fmt: skip


@PATHS
@pytest.mark.parametrize("make", [examples, sequences])
def test_follows_the_published_rule(make: Any, foreach: bool) -> None:
    lr, beta1, beta2, rho, eps, wd, k = 0.1, 0.8, 0.6, 5.0, 1e-3, 0.3, 3
    session, model = make(), linear_model()
    optimizer = Sophia(
        model.parameters(), session=session, model=model, lr=lr, beta1=beta1, beta2=beta2,
        rho=rho, eps=eps, weight_decay=wd, interval=k, foreach=foreach,
    )  # fmt: skip
    w, bias = model.weight.tolist(), model.bias.tolist()
    theta = [x for row in w for x in row] + bias
    m, h = [0.0] * len(theta), [0.0] * len(theta)
    clipped = set()
    for t in range(1, 9):
        for i, p in enumerate(model.parameters()):
            p.grad = random(*p.shape, seed=100 * t + i)
        g = [x for p in model.parameters() for x in p.grad.flatten().tolist()]
        if t % k == 1:
            torch.manual_seed(t)
            noise = torch.empty_like(model(session.last_batch.inputs)).exponential_()
            g_hat = [0.0] * len(theta)
            for (x, c), e in zip(
                predictions(session), noise.reshape(-1, CLASSES).tolist(), strict=True
            ):
                logits = logits_of(w, bias, x)
                scores = [a - math.log(b) for a, b in zip(logits, e, strict=True)]
                label, p = scores.index(max(scores)), softmax(logits)
                for j in range(CLASSES):
                    slope = math.sqrt(c) * (p[j] - (j == label))
                    for f in range(FEATURES):
                        g_hat[j * FEATURES + f] += slope * x[f]
                    g_hat[CLASSES * FEATURES + j] += slope
            h = [beta2 * a + (1 - beta2) * b * b for a, b in zip(h, g_hat, strict=True)]
        m = [beta1 * a + (1 - beta1) * b for a, b in zip(m, g, strict=True)]
        for j in range(len(theta)):
            u = m[j] / max(rho * h[j], eps)
            clipped.add(abs(u) > 1)
            theta[j] = theta[j] - lr * wd * theta[j] - lr * max(-1.0, min(1.0, u))
        w = [theta[j * FEATURES : (j + 1) * FEATURES] for j in range(CLASSES)]
        bias = theta[CLASSES * FEATURES :]
        torch.manual_seed(t)
        optimizer.step()
        now = [x for p in model.parameters() for x in p.detach().flatten().tolist()]
        assert now == pytest.approx(theta, rel=1e-10, abs=1e-12)
    assert clipped == {True, False}
    assert (session.forward, session.backward) == (3 * session.last_batch.size,) * 2


def squared_gradient(session: FakeSession, model: nn.Linear) -> Tensor:
    loss = sampled_cross_entropy(model(session.last_batch.inputs), session.last_batch)
    (g,) = torch.autograd.grad(loss, [model.weight])
    return g**2


@pytest.mark.parametrize("make", [examples, sequences])
def test_the_estimate_is_the_gauss_newton_diagonal_on_average(make: Any) -> None:
    session, model = make(), linear_model()
    torch.manual_seed(0)
    draws = 3000
    mean = sum(squared_gradient(session, model) for _ in range(draws)) / draws
    w, bias = model.weight.tolist(), model.bias.tolist()
    exact = [[0.0] * FEATURES for _ in range(CLASSES)]
    for x, c in predictions(session):
        p = softmax(logits_of(w, bias, x))
        for j in range(CLASSES):  # the softmax's Hessian has p (1 - p) on its diagonal
            for f in range(FEATURES):
                exact[j][f] += c * p[j] * (1 - p[j]) * x[f] ** 2
    torch.testing.assert_close(mean, torch.tensor(exact).double(), rtol=0.12, atol=1e-3)


def test_in_a_plain_mean_it_is_the_batch_size_times_the_squared_mean_gradient() -> None:
    session, model = examples(), linear_model()
    torch.manual_seed(5)
    ours = squared_gradient(session, model)
    torch.manual_seed(5)
    logits = model(session.last_batch.inputs)
    labels = (logits - torch.empty_like(logits).exponential_().log_()).argmax(-1)
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), [model.weight])
    torch.testing.assert_close(ours, 4 * g**2)


def test_labels_are_drawn_from_the_softmax_and_targets_do_not_matter() -> None:
    n = 20_000
    p = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    logits = (p.log() + 7).repeat(n, 1).requires_grad_()
    torch.manual_seed(0)
    batch: Any = SimpleNamespace(targets=torch.zeros(n, dtype=torch.int64), weights=None, size=n)
    (g,) = torch.autograd.grad(sampled_cross_entropy(logits, batch), [logits])
    labels = (g < 0).double()  # the slope is negative at the label alone
    torch.testing.assert_close(labels.mean(0), p, rtol=0, atol=0.015)


def test_a_diverged_model_does_not_stop_the_run() -> None:
    session, model = examples(), linear_model()
    with torch.no_grad():
        model.weight.fill_(math.nan)
    optimizer = Sophia(model.parameters(), session=session, model=model)
    model(session.last_batch.inputs).sum().backward()
    optimizer.step()
    assert model.weight.isnan().all()  # for the harness to find


def test_an_estimate_leaves_gradients_and_batch_norm_statistics_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, CLASSES)).double()
    session = examples()
    model(session.last_batch.inputs).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    Sophia(model.parameters(), session=session, model=model).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert model[0].track_running_stats is True


def several() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()


@pytest.mark.parametrize("block", [1, 20, sophia.CPU_BLOCK_ELEMENTS])
def test_fast_and_reference_paths_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sophia, "CPU_BLOCK_ELEMENTS", block)
    start, both = several(), {}
    for foreach in (True, False):
        model, session = copy.deepcopy(start), examples()
        groups: list[dict[str, Any]] = [
            {"params": list(model[0].parameters()), "lr": 0.05},
            {"params": list(model[2].parameters()), "weight_decay": 0.0, "rho": 2.0},
        ]
        optimizer = Sophia(groups, session=session, model=model, interval=2, foreach=foreach)
        torch.manual_seed(0)
        for step in range(6):
            for i, p in enumerate(model.parameters()):
                p.grad = None if (i + step) % 5 == 0 else random(*p.shape, seed=10 * step + i)
            optimizer.step()
        both[foreach] = list(model.parameters())
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-12, atol=1e-14)


def test_state_dict_round_trip() -> None:
    model, session = several(), examples()
    optimizer = Sophia(model.parameters(), session=session, model=model, interval=2)
    twin_model = copy.deepcopy(model)
    twin = Sophia(twin_model.parameters(), session=session, model=twin_model, lr=9.0)
    for step in range(6):
        if step == 3:  # between two estimates
            twin_model.load_state_dict(model.state_dict())
            twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for net, owner in ((model, optimizer), (twin_model, twin)):
            if owner is twin and step < 3:
                continue
            for i, p in enumerate(net.parameters()):
                p.grad = random(*p.shape, seed=10 * step + i)
            torch.manual_seed(step)
            owner.step()
    for p, q in zip(model.parameters(), twin_model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta1", "beta2", "rho", "eps"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    model = linear_model()
    with pytest.raises(ValueError, match=rf"Sophia: {name} must be a number in \[0, .*not "):
        Sophia(model.parameters(), session=examples(), model=model, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("rho", 0.0), ("eps", 0.0), ("interval", 0)])
def test_what_divides_is_not_zero(name: str, value: Any) -> None:
    model = linear_model()
    with pytest.raises(ValueError, match=f"Sophia: {name} .*"):
        Sophia(model.parameters(), session=examples(), model=model, **{name: value})


def test_sparse_gradients_are_refused() -> None:
    model = linear_model()
    model.weight.grad = torch.zeros(CLASSES, FEATURES).double().to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        Sophia(model.parameters(), session=examples(), model=model).step()


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(sophia.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(Sophia).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("params", "session", "model", "foreach")
    }
    assert set(card.needs) == {"session", "model"}
