"""A record as a table with the paper's columns, the paper's own figures apart and named as such."""

from __future__ import annotations

from fine_edge.bench import statistics
from fine_edge.bench.columns import (
    RowColumn,
    accuracy_columns,
    model_columns,
    number,
    of_paper,
    paper_accuracy_columns,
    paper_ratio_columns,
    ratio_columns,
    to_rows,
)
from fine_edge.bench.memory import INFERENCES
from fine_edge.bench.notes import (
    accuracy_note,
    fps_ratio_note,
    group_notes,
    harness_note,
    ratio_note,
    weights_note,
    with_doubts,
)
from fine_edge.bench.paper import SOURCE, paper_source
from fine_edge.bench.record import Record
from fine_edge.bench.render_device import device_table
from fine_edge.bench.wording import title
from fine_edge.table import Table


def to_table(record: Record) -> Table:
    """The record's table, ready for terminal, Markdown, CSV or HTML."""
    return device_table(record) if record.backend == "tensorrt" else _host_table(record)


def _host_table(record: Record) -> Table:
    columns = [
        *model_columns(record),
        *_memory_columns(),
        number("FPS", 2, lambda row: row.fps),
        number("Latency (ms)", 1, lambda row: row.latency_ms),
        number("Latency p90 (ms)", 1, lambda row: statistics.percentile(row.samples_ms, 90)),
        *ratio_columns(record),
        *accuracy_columns(record),
        number("Mem", 2, of_paper("mem_mb"), SOURCE),
        number("FPS", 0, of_paper("fps"), SOURCE),
        number("Latency (ms)", 2, of_paper("latency_ms"), SOURCE),
        *paper_ratio_columns(record),
        *paper_accuracy_columns(record),
    ]
    return to_rows(title(record), columns, record, _notes(record))


def _memory_columns() -> list[RowColumn]:
    return [
        number("Mem (MiB)", 1, lambda row: row.mem_mib),
        number("Weights (MiB)", 1, lambda row: row.weights_mib),
        number("RTX FP16 activation (MiB)", 2, lambda row: row.rtx.activation_mib if row.rtx else None),
        number("RTX FP16 weights (MiB)", 2, lambda row: row.rtx.weights_mib if row.rtx else None),
    ]


def _notes(record: Record) -> list[str]:
    """Definitions, conditions, and what is shaky."""
    threads = f"{record.threads} threads" if record.threads else "the backend's own number of threads"
    notes = [
        f"Latency: median of {record.rounds} single inferences, each after an untimed one,"
        f" input and outputs on the host. {ratio_note(record)}",
        "FPS: back-to-back queries / wall time, measured apart from latency, never its inverse. Batch 1.",
        f"Mem: peak resident set of a fresh process that loads the model and runs it {INFERENCES} times, minus that"
        " before loading. Weights: initialisers of the ONNX file. MiB = 2^20 bytes.",
        "#Params and FLOPs: of the PyTorch model, as the contract states them.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {threads}; {record.measured_at}.",
        f"{harness_note(record)} (null runner).",
        *group_notes(record),
    ]
    if any(row.rtx for row in record.rows):
        notes.append(
            "RTX FP16: what TensorRT-RTX plans for the FP16 graph compiled for SM86; nothing was run on a GPU."
        )
    notes += [*accuracy_note(record), *weights_note(record)]
    if any(row.paper for row in record.rows):
        notes += [_paper_note(record), *fps_ratio_note(record)]
    return with_doubts(record, notes)


def _paper_note(record: Record) -> str:
    source = paper_source(record)
    if source != SOURCE:
        return f"Columns marked {source} are the paper's, of weights that its authors trained."
    has_mem = any((row.paper or {}).get("mem_mb") for row in record.rows)
    mem = "; its Mem is FP32 activation of unfused attention" if has_mem else ""
    return (
        f"Columns marked {SOURCE} are the paper's: Jetson Orin Nano, TensorRT 10.7, FP16{mem}. Figures of this CPU are"
        " not Jetson figures; only ratios can be set beside each other, with care."
    )
