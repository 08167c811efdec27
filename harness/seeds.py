"""One seed, three independent streams: two submissions with one seed start alike."""

import hashlib

import msgspec


class SeedStreams(msgspec.Struct, frozen=True, kw_only=True):
    """Seeds for weights and for data order, the same for every submission, and its own."""

    initialisation: int
    data: int
    submission: int

    @classmethod
    def from_seed(cls, seed: int) -> "SeedStreams":
        """Derive the streams from the run's seed (any integer ≥ 0)."""
        return cls(
            initialisation=_derive(seed, "initialisation"),
            data=_derive(seed, "data"),
            submission=_derive(seed, "submission"),
        )


def _derive(seed: int, stream: str) -> int:
    digest = hashlib.sha256(f"timetrial/{stream}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: torch takes a signed 64-bit seed
