"""One seed, a stream for every use of chance: two submissions with one seed start alike."""

import hashlib

import msgspec


class SeedStreams(msgspec.Struct, frozen=True, kw_only=True):
    """One seed a generator. No two of them share one: equal draws would be tied to each other."""

    initialisation: int  # of the weights
    order: int  # of the training examples
    augmentation: int  # of what is trained on
    submission: int  # `session.generator`
    beside: int  # augmentation of what a submission looks at besides
    global_: int  # torch's global generator while the submission runs: dropout and its like

    @classmethod
    def from_seed(cls, seed: int) -> "SeedStreams":
        """Derive the streams from the run's seed (any integer ≥ 0)."""
        return cls(**{name: _derive(seed, name) for name in cls.__struct_fields__})


def _derive(seed: int, stream: str) -> int:
    digest = hashlib.sha256(f"timetrial/{stream}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: torch takes a signed 64-bit seed
