"""The verdict on a measurement: whether it is valid, and the reasons when it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fine_edge.jetson.power_modes import CLOCK_TOLERANCE
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.samples import UNSTABLE_SPREAD, is_unstable, robust_spread

Stamp = Literal["VALID", "THROTTLED", "CLOCKS-UNLOCKED", "UNSTABLE", "UNKNOWN"]
# At a lower load the GPU may be idle between kernels, and the governor may lower the clock on purpose.
BUSY_PERCENT = 90.0
# The meaning of the counters of NVIDIA's driver.
_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
_StampReason = tuple[Stamp, str]


@dataclass(frozen=True)
class Verdict:
    """A stamp and the reasons for it, worst first."""

    stamp: Stamp
    reasons: tuple[str, ...]


def judge(snapshots: Sequence[Snapshot], samples_ms: Sequence[float]) -> Verdict:
    """Return the stamp of a row, from the board's states during the run and from the latencies.

    The worst stamp counts: THROTTLED, CLOCKS-UNLOCKED, then UNKNOWN where no clock could be read, UNSTABLE, VALID.
    """
    found = [*_throttled(snapshots), *_unlocked(snapshots)]
    if not any(snapshot.gpu_max_mhz for snapshot in snapshots):
        found.append(("UNKNOWN", "the GPU's clocks cannot be read on this machine"))
    found += _unstable(samples_ms)
    if not found:
        return Verdict("VALID", ())
    return Verdict(found[0][0], tuple(dict.fromkeys(reason for _, reason in found)))


def _throttled(snapshots: Sequence[Snapshot]) -> list[_StampReason]:
    reasons = [reason for snapshot in snapshots for reason in snapshot.throttle]
    reasons += _events(snapshots)
    reasons += _slow(snapshots)
    reasons += [s.contradiction for s in snapshots if s.contradiction and _is_capped(s)][:1]
    return [("THROTTLED", reason) for reason in dict.fromkeys(reasons)]


def _is_capped(snapshot: Snapshot) -> bool:
    allowed, limit = snapshot.mode_gpu_mhz, snapshot.gpu_max_mhz
    return allowed is not None and limit is not None and limit < allowed


def _events(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """Yield a sentence for each counter that grew; counters run from boot, so only growth belongs to this row."""
    for counter, last in (snapshots[-1].oc_events if snapshots else {}).items():
        grown = last - snapshots[0].oc_events.get(counter, last)
        if grown > 0:
            yield f"{grown} {_EVENTS.get(counter, counter)} events throttled the clocks during the run"


def _slow(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """Yield a sentence when the busy GPU ran below its clock; heat lowers the limit, so the run's highest counts."""
    limit = max((s.gpu_max_mhz for s in snapshots if s.gpu_max_mhz), default=0.0)
    busy = [s for s in snapshots if (s.gpu_load_percent or 0) >= BUSY_PERCENT and s.gpu_mhz]
    slow = [s.gpu_mhz for s in busy if s.gpu_mhz and s.gpu_mhz < limit * (1 - CLOCK_TOLERANCE)]
    # An unlocked clock needs time to rise, so a single slow state is no throttling.
    locked = all(s.gpu_min_mhz == s.gpu_max_mhz for s in busy)
    if slow and (locked or len(slow) > len(busy) / 2):
        yield f"the busy GPU ran at {min(slow):.0f} MHz, its clock is {limit:.0f} MHz"


def _unlocked(snapshots: Sequence[Snapshot]) -> list[_StampReason]:
    reasons = [
        f"the GPU's clock is free between {s.gpu_min_mhz:.0f} and {s.gpu_max_mhz:.0f} MHz: sudo jetson_clocks"
        for s in snapshots
        if s.gpu_min_mhz is not None and s.gpu_max_mhz is not None and s.gpu_min_mhz != s.gpu_max_mhz
    ]
    contradictions = [s.contradiction for s in snapshots if s.contradiction and not _is_capped(s)]
    # The first of each is enough: the others differ only in figures.
    return [("CLOCKS-UNLOCKED", reason) for reason in (*reasons[:1], *contradictions[:1])]


def _unstable(samples_ms: Sequence[float]) -> list[_StampReason]:
    if not samples_ms or not is_unstable(samples_ms):
        return []
    spread = robust_spread(samples_ms)
    return [("UNSTABLE", f"latencies scatter by {spread:.1%} of their median, {UNSTABLE_SPREAD:.0%} is the limit")]
