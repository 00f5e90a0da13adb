"""Run a bench: prepare all groups, measure one after the other, and make a record of the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fine_edge import console, machine
from fine_edge.bench import memory
from fine_edge.bench.backends import BACKENDS, BenchOptions
from fine_edge.bench.group import Timings, time_group
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.prepare import Prepared, artifacts_folder, export_request, export_row, load_images, prepare
from fine_edge.bench.record import MeasuredGroup, Record
from fine_edge.bench.row import Row
from fine_edge.bench.setup import Setup
from fine_edge.bench.suites import Group, Suite, SuiteRow
from fine_edge.export.artifacts import require_library
from fine_edge.images import NamedImage
from fine_edge.zoo import paper
from fine_edge.zoo.catalog import CATALOG

# Load average per core above which other programs are likely to disturb a measurement.
BUSY_SHARE = 0.5


@dataclass(frozen=True)
class ReadyGroup:
    """A group whose files are there; ``rtx`` is by row."""

    name: str
    prepared: Sequence[Prepared]
    rtx: Sequence[RtxMemory | None]
    setup: Setup


def run_bench(options: BenchOptions) -> Record:
    """Measure a suite on this machine.

    Raises:
        FineEdgeError: when an image, an export or the backend fails.
    """
    backend, suite = BACKENDS[options.backend], options.chosen_suite
    backend.require(suite.rows[0].model)
    length = backend.length(options)
    images = load_images(options.images, length.rounds, options.frame)
    load = os.getloadavg()[0]  # before our own work raises it
    for row in suite.rows:
        require_library(
            export_request(row, options.input_hw, options.onnx_precision, options.frame),
            artifacts_folder(row, options.folder),
            plain=row.exporter == "plain",
        )
    return measure_groups(suite, [_ready(group, options) for group in suite.groups], images, options, load)


def measure_groups(
    suite: Suite, groups: Sequence[ReadyGroup], images: Sequence[NamedImage], options: BenchOptions, load: float
) -> Record:
    """Measure groups one after the other, and return the record.

    Args:
        suite: what they are of.
        groups: with their files.
        images: photographs.
        options: how to measure; the precision is the record's.
        load: of the machine before any work of ours.
    """
    for group in groups:
        group.setup.prepare()
    console.remark(f"images: {', '.join(image.name for image in images)}")
    _warn_of_load(load)
    timings = []
    for number, group in enumerate(groups, 1):
        heading = f"group {number} of {len(groups)}, {group.name}: " if len(groups) > 1 else ""
        if heading:
            console.remark(heading + ", ".join(row.row.label for row in group.prepared))
        timings.append(time_group(group.prepared, images, group.setup, heading))
    return _record(suite, options, [image.name for image in images], groups, timings)


def _ready(group: Group, options: BenchOptions) -> ReadyGroup:
    # First, because an FP16 export writes the FP32 file again, which must not change once its hash is in the record.
    rtx = [_rtx_memory(row, options) for row in group.rows]
    asked = options.folder, options.input_hw, options.onnx_precision, options.frame
    prepared = [prepare(row, *asked) for row in group.rows]
    backend = BACKENDS[options.backend]
    return ReadyGroup(group.name, prepared, rtx, backend.setup(prepared, backend.length(options), options))


def _warn_of_load(load: float) -> None:
    cores = machine.describe()["cores"]
    if load > BUSY_SHARE * cores:
        console.warn(f"other programs keep this machine busy (load {load:.1f} on {cores} cores); figures will scatter")


def _rtx_memory(row: SuiteRow, options: BenchOptions) -> RtxMemory | None:
    # Plain exports are only made in FP32.
    if not options.rtx or row.exporter == "plain":
        return None
    path = export_row(row, options.folder, options.input_hw, "fp16", options.frame)
    with console.status(f"compiling {row.label} in FP16"):
        return memory.measure_rtx(path)


def _record(
    suite: Suite,
    options: BenchOptions,
    images: Sequence[str],
    groups: Sequence[ReadyGroup],
    timings: Sequence[Timings],
) -> Record:
    rows = tuple(
        row
        for group, timed in zip(groups, timings, strict=True)
        for row in _rows(suite, options.chosen_precision, group, timed)
    )
    sizes = {item.input_hw for group in groups for item in group.prepared}
    return Record(
        suite=suite.name,
        title=suite.title,
        backend=timings[0].backend,
        precision=options.chosen_precision,
        input_hw=sizes.pop() if len(sizes) == 1 else None,
        machine=machine.describe(),
        images=tuple(images),
        rounds=min(len(row.samples_ms) for row in rows),
        threads=options.threads,
        quick=options.quick,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        harness=max((timed.harness for timed in timings), key=lambda cost: cost.worst_ms),
        rows=rows,
        platform=groups[0].setup.platform,
        cuda_graph=all(group.setup.cuda_graph for group in groups),
        groups=tuple(
            MeasuredGroup(group.prepared[0].row.label, timed.process_peak_mib)
            for group, timed in zip(groups, timings, strict=True)
        ),
    )


def make_row(item: Prepared, index: int, timings: Timings, **more: Any) -> Row:
    """Return a row of a record.

    Args:
        item: what was measured.
        index: of it in its group.
        timings: of the group.
        more: fields of the row that do not follow from these.
    """
    entry, cost = CATALOG.get(item.row.model), item.contract.cost if item.contract else None
    extras = timings.extras[index]
    return Row(
        model=item.row.label,
        attention=entry.attention if entry else None,
        complexity=entry.complexity if entry else "-",
        params_m=cost["params"] / 1e6 if cost else None,
        flops_g=cost["flops"] / 1e9 if cost else None,
        mem_mib=extras.mem_mib,
        weights_mib=item.weights_mib,
        artifact_sha256=item.sha256,
        random_weights=item.random_weights,
        samples_ms=timings.samples_ms(index),
        throughput=tuple(timings.throughput[index]),
        compute_ms=timings.compute_ms(index),
        engine=extras.engine,
        state=extras.state,
        input_hw=item.input_hw,
        **more,
    )


def _rows(suite: Suite, precision: str, group: ReadyGroup, timings: Timings) -> list[Row]:
    found = []
    for index, item in enumerate(group.prepared):
        stages = timings.ends[index]
        row = make_row(
            item,
            index,
            timings,
            rtx=group.rtx[index],
            paper=_paper(item.row.model, suite.paper_table),
            end_to_end_ms=stages.after_decode_ms if stages else timings.extras[index].end_to_end_ms,
            end_to_end=stages,
            precision=None if item.row.precision in (None, precision) else item.row.precision,
            baseline=group.prepared[0].row.label,
        )
        found.append(row)
    return found


def _paper(model: str, table: str | None) -> dict[str, float | None] | None:
    """Return the row of the paper's table for the model; ``None`` where it has none."""
    figures = next((row for row in paper.rows_of(model) if row.table == table), None)
    if figures is None:
        return None
    speed = {"mem_mb": figures.mem_mb, "fps": figures.fps, "latency_ms": figures.latency_ms}
    return {**speed, **figures.accuracy}
