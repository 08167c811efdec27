"""Sorts a model's parameters by the role they play, for optimizers that treat roles apart."""

from collections.abc import Sequence, Set

from torch import nn

from harness.cards import Role

ROLES: tuple[Role, ...] = ("matrix", "conv", "embedding", "head", "norm", "bias")

_NORMS = (
    nn.modules.batchnorm._NormBase,  # noqa: SLF001 - the only common base of batch norms
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_CONVOLUTIONS = nn.modules.conv._ConvNd  # noqa: SLF001 - likewise of convolutions


def parameter_role(module: nn.Module, name: str, parameter: nn.Parameter) -> Role:
    """Return the role of `module`'s own parameter `name`."""
    if isinstance(module, _NORMS):
        return "norm"
    if name.endswith("bias") or parameter.ndim < 2:
        return "bias"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(module, _CONVOLUTIONS):
        return "conv"
    return "matrix"


def parameter_groups(
    model: nn.Module, head_parameters: Set[str], decay_exempt_roles: Sequence[str]
) -> list[dict[str, object]]:
    """Return one parameter group a role, labelled `role`; exempt ones have weight decay 0.

    A parameter that several modules share counts once, in the role of the first.
    """
    by_role: dict[Role, list[nn.Parameter]] = {role: [] for role in ROLES}
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            role = parameter_role(module, name, parameter)
            full_name = f"{prefix}.{name}" if prefix else name
            if full_name in head_parameters and role != "bias":
                role = "head"
            by_role[role].append(parameter)
    groups: list[dict[str, object]] = []
    for role, parameters in by_role.items():
        if parameters:
            group: dict[str, object] = {"params": parameters, "role": role}
            if role in decay_exempt_roles:
                group["weight_decay"] = 0.0
            groups.append(group)
    return groups
