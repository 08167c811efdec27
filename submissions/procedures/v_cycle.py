"""V-cycle: train big, shrink, train small, grow back, mix the two, train on.

Zou, Zhang & Deng 2024, "A Multi-Level Framework for Accelerating Training Transformer Models",
ICLR, arXiv 2404.07999, with two levels. In width, unit j of the small model stands for units j
and j + n/2 of the big one; with F = ½ [I I] and T = [I; I], so that F T = I,

    coalesce       w = F W T    rows averaged, columns summed
    de-coalesce    W' = T w F   rows copied, columns copied and halved
    interpolate    W ← (1 - α) W + α W'

A dimension that does not shrink (vocabulary, positions) has the identity in place of F and T.
Heads keep their size and pair as (h, h + H/2). In depth, the small layer l is the mean of the big
layers 2l and 2l + 1, and is copied to both on the way back.

Pairs of equal units compute what the one did, so de-coalescing in width preserves the function.
In depth it does not: a residual block is applied twice. At α = 1 equal units would get equal
gradients for ever; mixing with the big model as it was before makes them differ.

The phases end at fractions of the horizon: `first` (the paper: about its warm-up) and `small`
more. Each has the recipe's optimizer with fresh state, and the one schedule runs through all
three. The small model's learning rate is `small_lr_factor` times the schedule's: 4 in the
authors' GPT-2 script, which also has α = ½ (their code's default is ¼).

While the small model trains, the big one stands still, and it is the big one that is evaluated.
A pass of the small model counts as a model pass like any other: what it saves is time.

The authors tie GPT-2's head to its embedding and so scale embeddings by 2 and ½ on the two ways;
here the head is a matrix of its own, and the rule for columns does it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.session import Procedure, Session


def transformer_sizes(model: nn.Module) -> dict[str, int]:
    """Return the arguments that `model`'s class builds it from, read off its modules.

    Raises:
        ValueError: it is no transformer of this layout.
    """
    parts = dict(model.named_children())
    tokens, positions, blocks = (parts.get(name) for name in ("tokens", "positions", "blocks"))
    if (
        not isinstance(tokens, nn.Embedding)
        or not isinstance(positions, nn.Embedding)
        or not isinstance(blocks, nn.ModuleList)
    ):
        raise ValueError(
            "v-cycle: needs a transformer with embeddings `tokens` and `positions` and a list "
            f"`blocks`; {type(model).__name__} has {', '.join(parts) or 'no parts'}"
        )
    attentions = [module for module in blocks.modules() if "heads" in vars(module)]
    heads = {int(vars(attention)["heads"]) for attention in attentions}
    if len(heads) != 1 or len(attentions) != len(blocks):
        raise ValueError("v-cycle: every block needs one attention, all of as many `heads`")
    if len({id(p) for p in model.parameters()}) != len(
        list(model.named_parameters(remove_duplicate=False))
    ):
        raise ValueError("v-cycle: the model shares parameters, which have no single mapping")
    return {
        "vocabulary": tokens.num_embeddings,
        "context": positions.num_embeddings,
        "width": tokens.embedding_dim,
        "depth": len(blocks),
        "heads": heads.pop(),
    }


def coalesced(big: nn.Module, *, halve_width: bool = True, halve_depth: bool = True) -> nn.Module:
    """Return the small model: F, T and the layers' means applied to every parameter.

    Raises:
        ValueError: the model has another layout, or an odd number of heads or blocks.
    """
    sizes = transformer_sizes(big)
    for halve, names in ((halve_width, ("heads", "width")), (halve_depth, ("depth",))):
        for name in names if halve else ():
            if sizes[name] % 2:
                raise ValueError(f"v-cycle: cannot halve {sizes[name]} {name}")
            sizes[name] //= 2
    weights = dict(big.named_parameters())
    device, dtype = next(iter(weights.values())).device, next(iter(weights.values())).dtype
    try:
        small = type(big)(**sizes).to(device, dtype)
    except TypeError as error:
        raise ValueError(f"v-cycle: cannot build a small {type(big).__name__}: {error}") from None
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            sources = [
                _mapped(weights[source], parameter.shape, _axes(small, name), _fold)
                for source in _counterparts(name, 2 if halve_depth else 1)
            ]
            parameter.copy_(torch.stack(sources).mean(dim=0))
    return small.train(big.training)


def decoalesced(small: nn.Module, big: nn.Module) -> dict[str, Tensor]:
    """Return the small model's parameters by name, in the shapes of `big`."""
    layers = transformer_sizes(big)["depth"] // transformer_sizes(small)["depth"]
    shapes = {name: parameter.shape for name, parameter in big.named_parameters()}
    return {
        target: _mapped(parameter.detach(), shapes[target], _axes(small, name), _unfold)
        for name, parameter in small.named_parameters()
        for target in _counterparts(name, layers)
    }


@torch.no_grad()
def interpolate(big: nn.Module, other: dict[str, Tensor], alpha: float) -> None:
    """Set `big` to (1 - α) times itself + α times the parameters `other`."""
    for name, parameter in big.named_parameters():
        parameter.lerp_(other[name], alpha)


def _fold(w: Tensor, dim: int, incoming: bool) -> Tensor:
    halves = torch.stack(w.chunk(2, dim))
    return halves.sum(dim=0) if incoming else halves.mean(dim=0)


def _unfold(w: Tensor, dim: int, incoming: bool) -> Tensor:
    return torch.cat((w, w), dim) / (2 if incoming else 1)


def _mapped(
    w: Tensor,
    shape: torch.Size,
    axes: tuple[int, dict[int, bool]],
    rule: Callable[[Tensor, int, bool], Tensor],
) -> Tensor:
    """Apply a rule along every axis whose size is another in `shape`."""
    stacked, incoming = axes
    result: Tensor = w.unflatten(0, (stacked, -1))
    for dim, is_incoming in incoming.items():
        if w.shape[dim] != shape[dim]:
            result = rule(result, dim + 1, is_incoming)
    return result.flatten(0, 1)


def _axes(model: nn.Module, name: str) -> tuple[int, dict[int, bool]]:
    """Return how many matrices are stacked, and by axis whether it takes units in (columns)."""
    path, _, own_name = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(owner, nn.Embedding):
        return 1, {1: False}
    if isinstance(owner, nn.LayerNorm):
        return 1, {0: False}
    if not isinstance(owner, nn.Linear):
        raise ValueError(f"v-cycle: no rule for `{name}` of a {type(owner).__name__}")
    # Query, key and value stand above each other in one layer of an attention.
    in_attention = "heads" in vars(model.get_submodule(path.rpartition(".")[0]))
    stacked = owner.out_features // owner.in_features if in_attention else 1
    return stacked, {0: False, 1: True} if own_name == "weight" else {0: False}


def _counterparts(name: str, layers: int) -> list[str]:
    """Return the names in the big model; `layers` of its blocks stand for one small one."""
    root, _, rest = name.partition(".")
    if root != "blocks":
        return [name]
    block, _, path = rest.partition(".")
    return [f"{root}.{int(block) * layers + i}.{path}" for i in range(layers)]


class VCycle(Procedure):
    """The V-cycle with two levels.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        *,
        first: float = 0.1,
        small: float = 0.4,
        alpha: float = 0.5,
        small_lr_factor: float = 1.0,
        halve_width: bool = True,
        halve_depth: bool = True,
    ) -> None:
        for name, value in {"first": first, "small": small, "alpha": alpha}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"v-cycle: {name} must be in [0, 1], not {value!r}")
        if not first + small <= 1:
            raise ValueError(f"v-cycle: first + small must be at most 1, not {first + small!r}")
        if not 0 < small_lr_factor < math.inf:
            raise ValueError(
                f"v-cycle: small_lr_factor must be in (0, inf), not {small_lr_factor!r}"
            )
        if not (halve_width or halve_depth):
            raise ValueError("v-cycle: halve_width or halve_depth must be true")
        self._first, self._small, self._alpha = first, small, alpha
        self._small_lr_factor = small_lr_factor
        self._halve_width, self._halve_depth = halve_width, halve_depth

    def train(self, session: Session, model: nn.Module) -> None:
        self._phase(session, model, model, until=self._first)
        small = coalesced(model, halve_width=self._halve_width, halve_depth=self._halve_depth)
        self._phase(
            session,
            small,
            model,
            until=self._first + self._small,
            lr_factor=self._small_lr_factor,
        )
        interpolate(model, decoalesced(small, model), self._alpha)
        del small
        self._phase(session, model, model, until=math.inf)

    def _phase(
        self,
        session: Session,
        trained: nn.Module,
        evaluated: nn.Module,
        *,
        until: float,
        lr_factor: float = 1.0,
    ) -> None:
        training = session.training(trained)

        def scale_lr(optimizer: torch.optim.Optimizer, *_: object) -> None:
            for group in optimizer.param_groups:
                group["lr"] *= lr_factor  # the schedule sets it anew before every step

        if lr_factor != 1:
            training.optimizer.register_step_pre_hook(scale_lr)
        while session.progress(session.examples) < until:
            training.step()
            session.maybe_evaluate(evaluated)
