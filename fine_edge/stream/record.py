"""The result of a stream: as JSON, as a table, and drawn."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import files, machine
from fine_edge.figure import new_figure, to_png
from fine_edge.runners.opened import Opened
from fine_edge.stream.pipeline import STAGES, Pipeline, Tally
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The stages that the bench's picture has too are drawn in its colours.
_COLORS = dict(zip(STAGES, ("#4c78a8", "#72b7b2", "#f58518", "#54a24b", "#b279a2"), strict=True))


def stages_ms(tally: Tally) -> dict[str, dict[str, float | None]]:
    """Return the median and the 90th percentile of each stage, milliseconds a frame; ``None`` where it did not run."""
    return {name: {"p50": times.percentile(50), "p90": times.percentile(90)} for name, times in tally.stages.items()}


def to_json(pipeline: Pipeline, opened: Opened, threshold: float, tracks: Sequence[int]) -> dict[str, Any]:
    """Return the result with all that produced it."""
    tally = pipeline.tally
    return {
        "frames": sum(tally.frames),
        "dropped": sum(pipeline.dropped),
        "fps": tally.frames_per_s,
        "seconds": tally.seconds,
        "stages_ms": stages_ms(tally),
        "detections": tally.detections,
        "tracks": sum(tracks) if tracks else None,
        "threshold": threshold,
        "ended_early": tally.end is not None,
        "sources": [
            {
                "name": source.name,
                "live": source.is_live,
                "frames": frames,
                "dropped": dropped,
                "reopened": source.reopened,
                "skipped": {str(path): reason for path, reason in source.skipped.items()},
            }
            for source, frames, dropped in zip(pipeline.sources, tally.frames, pipeline.dropped, strict=True)
        ],
        "model": opened.contract.model,
        "task": opened.contract.task,
        "precision": opened.precision,
        "batch": opened.contract.batch,
        "frames_per_batch": sum(tally.frames) / tally.batches if tally.batches else None,
        "batches_at_a_time": pipeline.network.at_a_time,
        "backend": opened.runner.name,
        "random_weights": opened.contract.random_weights,
        "artifact_sha256": opened.artifact_sha256,
        # Linux states it in KiB.
        "process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "machine": machine.describe(),
    }


def live_line(tally: Tally, dropped: int) -> str:
    """Return the state so far in one line."""
    times = [f"{name} {found:.1f}" for name in STAGES if (found := tally.stages[name].percentile(50)) is not None]
    return f"{sum(tally.frames)} frames, {tally.frames_per_s:.1f} FPS, {dropped} dropped; ms: {', '.join(times)}"


def to_table(data: dict[str, Any]) -> Table:
    """Return the stages of a result as a table."""
    title = (
        f"{data['model']} {data['precision']}, {data['backend']}: {data['fps']:.1f} FPS over {data['frames']} frames"
    )
    if data["random_weights"]:
        title += ", random weights: what it finds is meaningless"
    found = "segments" if data["task"] in ("semantic", "panoptic") else "detections"
    notes = [f"{data['detections']} {found} of at least {data['threshold']:g}; {data['dropped']} late frames dropped."]
    # Batches that are not full say that sources are slower than the network.
    if data["batch"] > 1 and data["frames_per_batch"]:
        notes.append(f"{data['frames_per_batch']:.1f} frames in each batch of at most {data['batch']}.")
    if data["tracks"] is not None:
        notes.append(f"{data['tracks']} tracks.")
    beside = data["batches_at_a_time"]
    notes.append(
        "Stages run side by side: the slowest one sets the FPS, their sum is the age of a frame."
        if beside == 1
        else f"Stages run side by side, the network on {beside} batches at a time, each on a core of its own."
    )
    table = Table(title, [Column("Stage", numeric=False), Column("p50 (ms)"), Column("p90 (ms)")], notes=notes)
    for name, times in data["stages_ms"].items():
        if times["p50"] is not None:
            table.add(name, f"{times['p50']:.2f}", f"{times['p90']:.2f}")
    return table


def _produced_by(data: dict[str, Any]) -> str:
    return (
        f"{data['model']} {data['precision']}, {data['backend']} on {data['machine']['gpu'] or data['machine']['cpu']}"
    )


def write_picture(data: dict[str, Any], path: Path) -> None:
    """Draw the stages of a frame one behind the other, as PNG."""
    files.write_bytes(path, to_png(lambda: _figure(data), dpi=150))


def _figure(data: dict[str, Any]) -> Figure:
    figure = new_figure(8, 2.2)
    axes = figure.add_subplot()
    left = 0.0
    for name, times in data["stages_ms"].items():
        if times["p50"] is None:
            continue
        axes.barh([0], [times["p50"]], left=left, color=_COLORS[name], label=f"{name} {times['p50']:.1f}")
        left += times["p50"]
    axes.set_yticks([])
    axes.set_xlabel("median of each stage, milliseconds a frame")
    axes.set_title(f"{_produced_by(data)}: {data['fps']:.1f} FPS", fontsize=10)
    axes.legend(ncols=len(STAGES), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35), frameon=False)
    return figure
