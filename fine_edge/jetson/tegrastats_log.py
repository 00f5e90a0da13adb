"""A log of ``tegrastats`` line by line, in memory that does not grow with it: spreads, duration, energy and a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fine_edge.jetson.tegrastats import Reading, is_whole, parse_line

# A clock that steps further, or back, was set, or the log has a hole: nobody knows what the board did meanwhile.
_LONGEST_STEP_S = 60.0
# Figures come in steps (1 %, 1/32 C, 40 mW), so a day of them has a few thousand values.
_MOST_VALUES = 10_000
# An AGX Orin has 11 sensors and 5 rails; a file of junk has any number of names.
_MOST_NAMES = 64
_MOST_POINTS = 1000

# Fields of a reading that a log summarises, in the order of tables.
SCALARS = (
    "gpu_load_percent",
    "gpu_mhz",
    "emc_load_percent",
    "emc_mhz",
    "cpu_load_percent",
    "cpu_mhz",
    "cpus_online",
    "ram_used_mib",
    "swap_used_mib",
)


class Spread:
    """Least, median, mean and greatest of a stream of numbers.

    The median is exact for up to 10,000 different values; beyond, it is that of the values rounded to three digits.
    """

    def __init__(self) -> None:
        self.number = 0
        self.sum = 0.0
        self.first = self.last = self.least = self.greatest = 0.0
        self._counts: Counter[float] = Counter()
        self._rounded = False

    def add(self, value: float) -> None:
        """Take one more number, which must be finite."""
        if not self.number:
            self.first = self.least = self.greatest = value
        self.number += 1
        self.sum += value
        self.last = value
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        self._counts[_rounded(value) if self._rounded else value] += 1
        if len(self._counts) > _MOST_VALUES and not self._rounded:
            self._rounded = True
            exact, self._counts = self._counts, Counter()
            for number, count in exact.items():
                self._counts[_rounded(number)] += count

    @property
    def mean(self) -> float:
        """Sum over number."""
        return self.sum / self.number

    @property
    def median(self) -> float:
        """The middle number, or the mean of the two in the middle."""
        lower = upper = None
        seen = 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if lower is None and seen >= (self.number + 1) // 2:
                lower = value
            if seen >= self.number // 2 + 1:
                upper = value
                break
        return ((lower or 0.0) + (upper or 0.0)) / 2


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


@dataclass
class Point:
    """What a trace holds of one stretch of time: number, sum, least and greatest of each series."""

    times: int = 0
    x_sum: float = 0.0
    series: dict[str, tuple[int, float, float, float]] = field(default_factory=dict)

    @property
    def x(self) -> float:
        """The middle of the stretch: seconds, or lines where a log has no times."""
        return self.x_sum / self.times

    def take(self, name: str, number: int, total: float, least: float, greatest: float) -> None:
        """Take more numbers of a series."""
        before = self.series.get(name)
        if before:
            number, total = before[0] + number, before[1] + total
            least, greatest = min(before[2], least), max(before[3], greatest)
        self.series[name] = (number, total, least, greatest)


class Trace:
    """Series over time, at most 2000 points: when there are more, each two become one."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._last_x: float | None = None
        self._times_each = 1

    def add(self, x: float, values: dict[str, float]) -> None:
        """Add the values of one line; lines of the same second make one point."""
        if x != self._last_x:
            if not self.points or self.points[-1].times >= self._times_each:
                self._halve()
                self.points.append(Point())
            self.points[-1].times += 1
            self.points[-1].x_sum += x
            self._last_x = x
        for name, value in values.items():
            self.points[-1].take(name, 1, value, value, value)

    def _halve(self) -> None:
        if len(self.points) < 2 * _MOST_POINTS:
            return
        for first, second in zip(self.points[::2], self.points[1::2], strict=True):
            first.times += second.times
            first.x_sum += second.x_sum
            for name, figures in second.series.items():
                first.take(name, *figures)
        self.points = self.points[::2]
        self._times_each *= 2


class TegrastatsLog:
    """The summary of a log.

    Attributes:
        lines: whole lines that were read.
        elapsed_s: by the board's clock, without steps back or of more than a minute; ``None`` where no line has a time.
        clock_steps: number of such steps.
        spreads: by field of a reading.
        temperatures_c: spreads by sensor.
        power_mw: spreads by rail.
        trace: power, GPU and temperatures over time.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.elapsed_s: float | None = None
        self.clock_steps = 0
        self.spreads: dict[str, Spread] = {}
        self.temperatures_c: dict[str, Spread] = {}
        self.power_mw: dict[str, Spread] = {}
        self.trace = Trace()
        self._clock_s: float | None = None
        self._second: dict[str, Spread] = {}  # power of the lines with the present time
        self._before: tuple[float, dict[str, float]] | None = None
        self._energy_mj: dict[str, float] = {}

    def add(self, line: str) -> bool:
        """Read a line; return ``False`` and leave it out when it is no whole line of ``tegrastats``."""
        if "RAM " not in line or not is_whole(line):
            return False
        reading = parse_line(line)
        self.lines += 1
        self._tick(reading.clock_s)
        for name in SCALARS:
            value = getattr(reading, name)
            if value is not None:
                self.spreads.setdefault(name, Spread()).add(value)
        _add_named(self.temperatures_c, reading.temperatures_c)
        _add_named(self.power_mw, reading.power_mw)
        _add_named(self._second, reading.power_mw)
        x = self.elapsed_s if self.elapsed_s is not None else self.lines - 1.0
        self.trace.add(x, dict(self._traced(reading)))
        return True

    def _tick(self, clock_s: float | None) -> None:
        if clock_s is None or clock_s == self._clock_s:
            return
        step_s = 0.0 if self._clock_s is None else clock_s - self._clock_s
        self._integrate()
        if 0 <= step_s <= _LONGEST_STEP_S:
            self.elapsed_s = (self.elapsed_s or 0.0) + step_s
        else:
            self.clock_steps += 1
            self._before = None
        self._clock_s = clock_s

    def _integrate(self) -> None:
        """Add the energy up to the present second, whose power is the mean of its lines: mW x s = mJ."""
        mean_mw = {rail: spread.mean for rail, spread in self._second.items()}
        now_s = self.elapsed_s or 0.0
        if self._before:
            before_s, before_mw = self._before
            for rail in before_mw.keys() & mean_mw.keys():
                added = (now_s - before_s) * (before_mw[rail] + mean_mw[rail]) / 2
                self._energy_mj[rail] = self._energy_mj.get(rail, 0.0) + added
        if mean_mw:
            self._before = (now_s, mean_mw)
        self._second = {}

    def _traced(self, reading: Reading) -> Iterator[tuple[str, float]]:
        for name in ("gpu_load_percent", "gpu_mhz"):
            value = getattr(reading, name)
            if value is not None:
                yield name, value
        yield from ((f"power {rail}", value) for rail, value in reading.power_mw.items() if rail in self.power_mw)
        sensors = reading.temperatures_c.items()
        yield from ((f"temperature {name}", value) for name, value in sensors if name in self.temperatures_c)

    @property
    def has_times(self) -> bool:
        """Whether the board's clock says how long the log took: it has more than one second."""
        return bool(self.elapsed_s)

    def seconds(self, interval_ms: float | None) -> float | None:
        """Return the duration from the first line to the last; ``None`` where neither clock nor interval tell it."""
        if self.has_times:
            return self.elapsed_s
        return None if interval_ms is None else (self.lines - 1) * interval_ms / 1e3

    def energy_j(self, interval_ms: float | None) -> dict[str, float]:
        """Return the energy of each rail over the log by trapezoids, joule; nothing where times are not known."""
        if self.has_times:
            self._integrate()
            return {rail: energy / 1e3 for rail, energy in self._energy_mj.items()}
        if interval_ms is None or self.lines < 2:
            return {}
        return {
            rail: (spread.sum - (spread.first + spread.last) / 2) * interval_ms / 1e6
            for rail, spread in self.power_mw.items()
            if spread.number == self.lines
        }


def _add_named(spreads: dict[str, Spread], values: dict[str, float]) -> None:
    for name, value in values.items():
        if name in spreads or len(spreads) < _MOST_NAMES:
            spreads.setdefault(name, Spread()).add(value)
