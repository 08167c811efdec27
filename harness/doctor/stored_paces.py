"""Whether the stored paces, which budgets count in, were measured in peace."""

import time
from pathlib import Path

from harness.doctor.finding import Finding
from harness.errors import UsageError
from harness.paces import Pace, load_pace

WIDE_QUARTILES = 0.10  # of the median; an undisturbed core stays below a few percent
OLD_DAYS = 90
_NS_A_DAY = 86_400 * 10**9


def stored_paces(
    folder: Path, host: str, machine_class: str, now_unix_ns: int | None = None
) -> list[Finding]:
    """Report on the paces of this host and machine class."""
    now_unix_ns = time.time_ns() if now_unix_ns is None else now_unix_ns
    found: list[Finding] = []
    paces: list[Pace] = []
    for path in sorted(folder.glob("*.json")):
        try:
            pace = load_pace(path)
        except UsageError as error:
            found.append(
                Finding(check="stored pace", status="warning", found=str(error), effect="shift")
            )
            continue
        if pace and (pace.host, pace.machine_class) == (host, machine_class):
            paces.append(pace)
    for pace in paces:
        spread = (pace.quartile_high_ns - pace.quartile_low_ns) / pace.pace_ns
        days = (now_unix_ns - pace.measured_unix_ns) // _NS_A_DAY
        if spread <= WIDE_QUARTILES and days <= OLD_DAYS:
            continue
        measured = f"{pace.pace_ns / 1e6:.3g} ms ± {spread / 2:.0%}, {days} days old"
        found.append(
            Finding(
                check=f"pace of {pace.workload}",
                status="warning",
                found=measured,
                advice=f"bench pace -w {pace.workload} --measure, when nothing else runs",
                effect="shift",
            )
        )
    if found:
        return found
    count = f"{len(paces)} measured, all steadily" if paces else "none yet; the first run measures"
    return [Finding(check="stored paces", status="ok", found=count)]
