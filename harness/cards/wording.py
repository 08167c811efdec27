"""How errors about cards name what is legal."""

from collections.abc import Iterable

from harness.errors import did_you_mean


def not_among(name: str, legal: Iterable[str]) -> str:
    return f"names `{name}`. {did_you_mean(name, legal)}Known: {listed(sorted(legal)) or 'none'}"


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
