"""Energy of the processor packages, from RAPL through Linux's powercap files.

https://docs.kernel.org/power/powercap/powercap.html
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# One package and its memory stay well below; a counter that was reset looks like more.
MAX_PLAUSIBLE_POWER_W = 2000.0
COUNTER_STEP_S = 0.1


@dataclass(slots=True)
class _Domain:
    name: str
    energy_file: Path
    range_uj: int | None
    last_uj: int


class RaplCounter:
    """Joules of all packages, plus their memory where it is counted ("dram").

    A package's own figure holds its cores and integrated graphics, so those are not added;
    nor is `psys`, which holds the packages. Where the files are missing or for root alone
    (the default since 2020, CVE-2020-8694), `unavailable_reason` says so and every figure is
    None. So it is from the moment a counter does what no counter can do.
    """

    def __init__(
        self,
        root: Path = Path("/sys/class/powercap"),
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._clock = clock
        self._total_uj = 0
        self._domains: list[_Domain] = []
        self.unavailable_reason: str | None = None
        try:
            self._domains = _find_domains(root)
        except PermissionError as error:
            self.unavailable_reason = (
                f"{error.filename} is readable by root only; "
                "allow it (chmod a+r on the energy_uj files) to measure energy"
            )
        except (OSError, ValueError) as error:
            self.unavailable_reason = f"RAPL could not be read: {error}"
        else:
            if not self._domains:
                self.unavailable_reason = f"no RAPL package in {root}"
        self._last_ns = clock()

    @property
    def available(self) -> bool:
        return self.unavailable_reason is None

    def energy_j(self) -> float | None:
        """Joules since construction.

        Call it more often than the counters wrap around (a quarter of an hour at worst).
        """
        if not self.available:
            return None
        now_ns = self._clock()
        allowed_uj = MAX_PLAUSIBLE_POWER_W * ((now_ns - self._last_ns) / 1e9 + COUNTER_STEP_S) * 1e6
        for domain in self._domains:
            try:
                value_uj = int(domain.energy_file.read_text())
            except (OSError, ValueError) as error:
                self.unavailable_reason = f"RAPL stopped being readable: {error}"
                return None
            delta_uj = value_uj - domain.last_uj
            wrapped = delta_uj < 0
            if wrapped and domain.range_uj is not None:
                delta_uj += domain.range_uj
            if not 0 <= delta_uj <= allowed_uj:
                what = "ran backwards" if wrapped else "jumped"
                self.unavailable_reason = (
                    f"RAPL's counter of {domain.name} {what}: "
                    f"{domain.last_uj} µJ, then {value_uj} µJ"
                )
                return None
            self._total_uj += delta_uj
            domain.last_uj = value_uj
        self._last_ns = now_ns
        return self._total_uj / 1e6


def _find_domains(root: Path) -> list[_Domain]:
    # AMD's counters stand under intel-rapl too. The colon keeps out intel-rapl-mmio, a second
    # door to the same packages.
    domains = []
    for folder in sorted(root.glob("intel-rapl:*")):
        name = (folder / "name").read_text().strip()
        if re.fullmatch(r"package-\d+(-die-\d+)?", name) is None and name != "dram":
            continue
        range_file = folder / "max_energy_range_uj"
        energy_file = folder / "energy_uj"
        domains.append(
            _Domain(
                name=f"{name} ({folder.name})",
                energy_file=energy_file,
                range_uj=int(range_file.read_text()) if range_file.exists() else None,
                last_uj=int(energy_file.read_text()),
            )
        )
    return domains
