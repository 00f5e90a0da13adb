"""The verdict on a measurement: whether it is valid, and the reasons when it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fine_edge.fields import ADDED
from fine_edge.jetson.power_modes import CLOCK_TOLERANCE
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.samples import UNSTABLE_SPREAD, is_unstable, robust_spread

Stamp = Literal["VALID", "THROTTLED", "CLOCKS-UNLOCKED", "UNSTABLE", "UNKNOWN"]
# At a lower load the GPU may be idle between kernels, and the governor may lower the clock on purpose.
BUSY_PERCENT = 90.0
# On an Orin Nano in MAXN_SUPER oc3 grows without load too: 1.0 to 1.7 events a second over seven windows of 20 to 60 s
# on L4T 36.4.4, seldom 30, each about 1 ms at half clock, while oc1 and oc2 stay 0. So oc3 is judged by what it costs:
# 1.7 events a second cost 0.09 % of the time, 30 cost 1.5 %. FINE costs about 1 %, so half of that would be seen.
_HALF_CLOCK_S = 0.001
_MOST_LOST = 0.005
_GRADED = "oc3"
# The meaning of the counters of NVIDIA's driver.
_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
_StampReason = tuple[Stamp, str]


@dataclass(frozen=True)
class Verdict:
    """A stamp, the reasons for it, worst first, and notes on what was found and does not count against the row."""

    stamp: Stamp
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), metadata=ADDED)


def judge(snapshots: Sequence[Snapshot], samples_ms: Sequence[float]) -> Verdict:
    """Return the stamp of a row, from the board's states during the run and from the latencies.

    The worst stamp counts: THROTTLED, CLOCKS-UNLOCKED, then UNKNOWN where no clock could be read, UNSTABLE, VALID.
    """
    events = list(_events(snapshots))
    found = [*_throttled(snapshots, events), *_unlocked(snapshots)]
    if not any(snapshot.gpu_max_mhz for snapshot in snapshots):
        found.append(("UNKNOWN", "the GPU's clocks cannot be read on this machine"))
    found += _unstable(samples_ms)
    notes = tuple(event.sentence for event in events if event.is_slight)
    if not found:
        return Verdict("VALID", (), notes)
    return Verdict(found[0][0], tuple(dict.fromkeys(reason for _, reason in found)), notes)


@dataclass(frozen=True)
class _Events:
    """Throttling events of one counter during the run; ``seconds`` is 0 where it is not known how long it took."""

    counter: str
    number: int
    seconds: float

    @property
    def lost(self) -> float | None:
        """Estimated share of the time that was lost; ``None`` where the cost of an event or the time is unknown."""
        if self.counter != _GRADED or self.seconds <= 0:
            return None
        return self.number / self.seconds * _HALF_CLOCK_S / 2

    @property
    def is_slight(self) -> bool:
        return self.lost is not None and self.lost <= _MOST_LOST

    @property
    def sentence(self) -> str:
        if self.lost is None:
            meaning = _EVENTS.get(self.counter, self.counter)
            return f"{self.number} {meaning} events throttled the clocks during the run"
        rate = f"{self.counter}, {self.number / self.seconds:.1f}/s"
        cost = f"{self.number} over-current events ({rate}) cost about {self.lost:.2%} of the time (estimate)"
        return cost if self.is_slight else f"{cost}, more than {_MOST_LOST:.1%}"


def _throttled(snapshots: Sequence[Snapshot], events: Sequence[_Events]) -> list[_StampReason]:
    reasons = [reason for snapshot in snapshots for reason in snapshot.throttle]
    reasons += [event.sentence for event in events if not event.is_slight]
    reasons += _slow(snapshots)
    reasons += [s.contradiction for s in snapshots if s.contradiction and _is_capped(s)][:1]
    return [("THROTTLED", reason) for reason in dict.fromkeys(reasons)]


def _is_capped(snapshot: Snapshot) -> bool:
    allowed, limit = snapshot.mode_gpu_mhz, snapshot.gpu_max_mhz
    return allowed is not None and limit is not None and limit < allowed


def _events(snapshots: Sequence[Snapshot]) -> Iterator[_Events]:
    """Yield each counter that grew; counters run from boot, so only growth belongs to this row."""
    for counter in dict.fromkeys(name for snapshot in snapshots for name in snapshot.oc_events):
        read = [snapshot for snapshot in snapshots if counter in snapshot.oc_events]
        grown = read[-1].oc_events[counter] - read[0].oc_events[counter]
        if grown > 0:
            yield _Events(counter, grown, read[-1].at_s - read[0].at_s)


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
