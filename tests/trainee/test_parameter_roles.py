import pytest
import torch
from torch import nn

from harness.trainee.parameter_roles import parameter_groups


class Model(nn.Module):
    """One module of each kind that has a role, and a head that shares the embedding's weight."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.bag = nn.EmbeddingBag(11, 4)
        self.conv1 = nn.Conv1d(4, 4, 3)
        self.conv2 = nn.ConvTranspose2d(4, 4, 3, bias=False)
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)]
        )
        self.attention = nn.MultiheadAttention(4, 2)
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.mixing = nn.Parameter(torch.ones(4, 4))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.head = nn.Linear(4, 11)
        if tied:
            self.head.weight = self.embedding.weight


HEAD = {"head.weight", "head.bias"}
EXPECTED = {
    "matrix": {"attention.in_proj_weight", "attention.out_proj.weight", "linear.weight", "mixing"},
    "conv": {"conv1.weight", "conv2.weight"},
    "embedding": {"embedding.weight", "bag.weight"},
    "head": {"head.weight"},
    "norm": {
        *(f"norms.{i}.weight" for i in range(4)),
        *(f"norms.{i}.bias" for i in range(3)),
    },
    "bias": {
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "conv1.bias",
        "linear.bias",
        "head.bias",
        "scale",
    },
}


def roles(model: nn.Module) -> dict[object, set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, HEAD, ["norm", "bias"])
    return {group["role"]: {names[p] for p in group["params"]} for group in groups}  # type: ignore[attr-defined]


def test_every_parameter_has_one_role() -> None:
    model = Model()
    assert roles(model) == EXPECTED
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = parameter_groups(model, HEAD, [])
    listed = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(listed) == len(set(listed)) == len(trained)


def test_a_shared_weight_counts_once_in_the_role_of_the_first() -> None:
    found = roles(Model(tied=True))
    assert found["embedding"] == EXPECTED["embedding"]
    assert "head" not in found


@pytest.mark.parametrize("exempt", [[], ["norm", "bias"]])
def test_exempt_roles_decay_not_and_the_others_keep_the_optimizers_own(exempt: list[str]) -> None:
    groups = parameter_groups(Model(), HEAD, exempt)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.3)
    decay = {group["role"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {role: 0.0 if role in exempt else 0.3 for role in EXPECTED}
