"""Show states, power modes and logs of boards as tables, and draw logs over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import files
from fine_edge.errors import BoardError
from fine_edge.figure import new_figure, to_png
from fine_edge.jetson.power_modes import ModeTable
from fine_edge.jetson.printed import BoardFile, BoardState
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats_log import Point, Spread, TegrastatsLog
from fine_edge.table import Column, Table
from fine_edge.text import printable

_TITLES = {
    "gpu_load_percent": ("GPU load (%)", 1),
    "gpu_mhz": ("GPU clock (MHz)", 0),
    "emc_load_percent": ("Memory load (%)", 1),
    "emc_mhz": ("Memory clock (MHz)", 0),
    "cpu_load_percent": ("CPU load (%)", 1),
    "cpu_mhz": ("CPU clock (MHz)", 0),
    "cpus_online": ("CPUs on-line", 0),
    "ram_used_mib": ("RAM used (MiB)", 0),
    "swap_used_mib": ("Swap used (MiB)", 0),
}
_DEFINITIONS = [
    "GPU clock: of the fastest graphics cluster; idle clusters that show 0 are left out. CPU load: mean of the cores"
    " that are on-line; CPU clock: of the fastest.",
    "Power: the first figure of a rail, which is that of the moment. VDD_IN is the whole module on an Orin Nano; other"
    " rails are parts of it.",
    "Energy: power by trapezoids over the board's clock, the lines of one second as one; steps of the clock back, or of"
    " more than a minute, are left out. Without times in the lines: over --interval-ms.",
]


def log_table(file: BoardFile, log: TegrastatsLog, interval_ms: float | None) -> Table:
    """Return the figures of a log: least, median, mean and greatest, and energy by rail."""
    seconds = log.seconds(interval_ms)
    took = "" if seconds is None else f" over {seconds:.{0 if log.has_times else 1}f} s"
    titles = ["Lines", "Min", "Median", "Mean", "Max", "Energy (J)"]
    brief = list(_doubts(file, log, interval_ms))
    table = Table(
        f"{file.path.name}: {log.lines} lines of tegrastats{took}",
        [Column("Figure", numeric=False), *map(Column, titles)],
        notes=[*brief, *_DEFINITIONS],
        brief=brief,
    )
    energy_j = log.energy_j(interval_ms)
    for name, (title, digits) in _TITLES.items():
        if name in log.spreads:
            table.add(title, *_cells(log.spreads[name], digits), None)
    for sensor, spread in log.temperatures_c.items():
        table.add(f"{sensor} (C)", *_cells(spread, 1), None)
    for rail, spread in log.power_mw.items():
        table.add(f"{rail} (mW)", *_cells(spread, 0), f"{energy_j[rail]:.1f}" if rail in energy_j else None)
    return table


def _cells(spread: Spread, digits: int) -> list[str]:
    figures = (spread.least, spread.median, spread.mean, spread.greatest)
    return [str(spread.number), *(f"{figure:.{digits}f}" for figure in figures)]


def _doubts(file: BoardFile, log: TegrastatsLog, interval_ms: float | None) -> Iterator[str]:
    if file.left_out:
        verb = "is no whole line of tegrastats and was" if file.left_out == 1 else "are no whole lines of it and were"
        yield f"{file.left_out} of {log.lines + file.left_out} lines {verb} left out."
    missing = [title for name, title in (("gpu_mhz", "GPU"), ("emc_mhz", "memory")) if name not in log.spreads]
    if missing:
        yield f"No clock of {' and '.join(missing)}: only root gets it (sudo tegrastats), idle clusters show none."
    if log.clock_steps:
        steps = "once" if log.clock_steps == 1 else f"{log.clock_steps} times"
        yield f"The board's clock was set, or lines are missing, {steps}: that time is in neither duration nor energy."
    if log.has_times and interval_ms is not None:
        yield "The lines' own times were used, not --interval-ms."
    if log.seconds(interval_ms) is None:
        yield "No duration, no energy: the lines do not say when they were written; --interval-ms says how often."


def modes_table(modes: ModeTable) -> Table:
    """Return the power modes of an ``nvpmodel.conf``."""
    titles = ["Mode", "GPU up to (MHz)", "Memory up to (MHz)"]
    columns = [Column("Name", numeric=False), *map(Column, titles), Column("At boot", numeric=False)]
    table = Table(f"{modes.source}: power modes", columns)
    for mode in modes.modes:
        limits = (_limit(mode.gpu_max_mhz), _limit(mode.emc_max_mhz))
        table.add(mode.name, mode.id, *limits, "yes" if mode.id == modes.default_id else None)
    if any(mode.gpu_max_mhz is None for mode in modes.modes):
        table.notes = ["A dash: the file sets no limit, so the module's own holds."]
    return table


def _limit(mhz: float | None) -> str | None:
    return None if mhz is None else f"{mhz:g}"


def state_table(title: str, state: BoardState) -> Table:
    """Return the state of a board, and how it contradicts itself."""
    table = Table(title, [Column("What", numeric=False), Column("State", numeric=False)])
    for name, text in _state_lines(state):
        table.add(name, text)
    table.notes = [f"Contradiction: {text}." for text in state.contradictions]
    return table


def _state_lines(state: BoardState) -> Iterator[tuple[str, str]]:
    found = state.snapshot
    if state.model or state.l4t:
        yield "board", f"{state.model or 'model unknown'}, L4T {state.l4t or 'unknown'}"
    yield "power mode", _mode(state)
    yield "GPU clock", _clock(found.gpu_mhz, found.gpu_min_mhz, found.gpu_max_mhz, found.unread.get("gpu_mhz"))
    yield "memory clock", _clock(found.emc_mhz, None, found.emc_max_mhz, found.unread.get("emc_mhz"))
    yield "clocks", _locks(state)
    if found.gpu_load_percent is not None:
        yield "GPU load", f"{found.gpu_load_percent:.1f} %"
    if found.temperatures_c:
        yield "temperature", ", ".join(f"{name} {celsius:.1f} C" for name, celsius in found.temperatures_c.items())
    if found.power_mw or "power_mw" in found.unread:
        power = ", ".join(f"{rail} {power:.0f} mW" for rail, power in found.power_mw.items())
        yield "power", power or f"unknown ({found.unread['power_mw']})"
    if found.throttle or found.oc_events:
        yield "throttling", _throttling(found)


def _mode(state: BoardState) -> str:
    found = state.snapshot
    if found.mode is None:
        return "unknown" if found.mode_id is None else f"unknown (mode {found.mode_id})"
    number = "" if found.mode_id is None else f" (mode {found.mode_id})"
    limit = f", GPU up to {found.mode_gpu_mhz:g} MHz by the {state.modes.source}" if found.mode_gpu_mhz else ""
    return f"{found.mode}{number}{limit}"


def _clock(now: float | None, low: float | None, high: float | None, reason: str | None) -> str:
    """Return limits and present clock in words; ``reason`` is why the present one is not known."""
    limits = ""
    if high:
        limits = f"{high:g} MHz" if low == high else f"{low:g} to {high:g} MHz" if low else f"up to {high:g} MHz"
    present = f"now {now:g} MHz" if now else f"now unknown ({reason})" if reason else ""
    return ", ".join(filter(None, (limits, present))) or "unknown"


def _locks(state: BoardState) -> str:
    words = {True: "locked", False: "not locked: sudo jetson_clocks", None: "unknown"}
    emc = {True: "; memory locked", False: "; memory not locked", None: ""}[state.emc_locked]
    return words[state.snapshot.is_locked] + emc


def _throttling(found: Snapshot) -> str:
    counted = ", ".join(f"{name} {count}" for name, count in found.oc_events.items() if count)
    since = f"; over-current events since boot: {counted}" if counted else ""
    return ("; ".join(found.throttle) or "none now") + since


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Draw logs of ``tegrastats`` over time: power, GPU and temperatures, one column a log.

MOST_LOGS = 4
_MOST_LINES = 6
_LOAD = "tab:gray"


def write_picture(logs: Sequence[tuple[str, TegrastatsLog]], interval_ms: float | None, path: Path) -> None:
    """Write a PNG of 1 to :data:`MOST_LOGS` logs, each with its name.

    Raises:
        BoardError: when there is none, there are more, or one has a single moment.
    """
    if not logs:
        raise BoardError("there is no log of tegrastats to draw", where=path, hint="sudo tegrastats --logfile FILE")
    if len(logs) > MOST_LOGS:
        raise BoardError(f"{len(logs)} logs, one picture holds {MOST_LOGS}", where=path, hint="give fewer at a time")
    for name, log in logs:
        if len(log.trace.points) < 2:
            raise BoardError("its lines are all of one moment, nothing can be drawn over time", where=name)
    files.write_bytes(path, to_png(lambda: _figure(logs, interval_ms), dpi=100))


def _figure(logs: Sequence[tuple[str, TegrastatsLog]], interval_ms: float | None) -> Figure:
    figure = new_figure(1.5 + 6.5 * len(logs), 9)
    axes = figure.subplots(3, len(logs), squeeze=False, sharex="col")
    for (name, log), (power, gpu, heat) in zip(logs, axes.T, strict=True):
        timed = log.elapsed_s is not None or interval_ms is not None
        scale = 1.0 if log.elapsed_s is not None or interval_ms is None else interval_ms / 1e3
        power.set_title(f"{printable(name)}: {log.lines} lines", fontsize=10)
        _draw_all(power, log.trace.points, "power ", scale, 1e-3, "power (W)")
        _draw_gpu(gpu, log.trace.points, scale)
        _draw_all(heat, log.trace.points, "temperature ", scale, 1.0, "temperature (C)")
        heat.set_xlabel("time (s)" if timed else "line")
    return figure


def _names(points: Sequence[Point], prefix: str) -> list[str]:
    """Return the series of one kind in the order of the log, the first few of them."""
    return [n for n in dict.fromkeys(n for point in points for n in point.series) if n.startswith(prefix)][:_MOST_LINES]


def _draw_all(axes: Any, points: Sequence[Point], prefix: str, x_scale: float, scale: float, label: str) -> None:
    names = _names(points, prefix)
    for name in names:
        _draw(axes, points, name, x_scale, scale, label=name.removeprefix(prefix))
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.3)
    if names:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_gpu(axes: Any, points: Sequence[Point], x_scale: float) -> None:
    _draw(axes, points, "gpu_mhz", x_scale, 1.0, color="tab:blue")
    axes.set_ylabel("GPU clock (MHz)", color="tab:blue")
    axes.set_ylim(0, 1.05 * max([1.0, *(point.series["gpu_mhz"][3] for point in points if "gpu_mhz" in point.series)]))
    axes.grid(visible=True, alpha=0.3)
    if not _names(points, "gpu_mhz"):
        axes.set_yticks([])
        axes.set_ylabel("GPU clock: in no line", color="tab:blue")
    load = axes.twinx()
    _draw(load, points, "gpu_load_percent", x_scale, 1.0, color=_LOAD)
    load.set_ylabel("GPU load (%)", color=_LOAD)
    load.set_ylim(0, 105)


def _draw(axes: Any, points: Sequence[Point], name: str, x_scale: float, scale: float, **style: Any) -> None:
    """Draw the mean of a series, and least to greatest behind it where points stand for several lines."""
    found = [(point.x * x_scale, point.series[name]) for point in points if name in point.series]
    if not found:
        return
    x = [place for place, _ in found]
    (line,) = axes.plot(x, [scale * total / number for _, (number, total, _, _) in found], linewidth=1.2, **style)
    if any(number > 1 for _, (number, _, _, _) in found):
        low, high = ([scale * figures[place] for _, figures in found] for place in (2, 3))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
