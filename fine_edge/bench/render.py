"""A record as a table with Table 3's columns, the paper's own figures apart and named as such."""

from __future__ import annotations

from fine_edge.bench import statistics
from fine_edge.bench.memory import INFERENCES
from fine_edge.bench.paper import SOURCE, paper_ratio
from fine_edge.bench.record import Record, Row
from fine_edge.bench.render_device import device_table
from fine_edge.bench.wording import attention_title, fixed, title
from fine_edge.table import Column, Table


def to_table(record: Record) -> Table:
    """The record's table, ready for terminal, Markdown, CSV or HTML."""
    return device_table(record) if record.backend == "tensorrt" else _host_table(record)


def _host_table(record: Record) -> Table:
    with_p90 = any(statistics.percentile(row.samples_ms, 90) is not None for row in record.rows)
    with_rtx = any(row.rtx for row in record.rows)
    with_paper = any(row.paper for row in record.rows)
    columns = [Column("Model", numeric=False), Column("Attention", numeric=False), Column("Complexity", numeric=False)]
    columns += map(Column, ("#Params (M)", "FLOPs (G)", "Mem (MiB)", "Weights (MiB)"))
    columns += map(Column, ("RTX FP16 activation (MiB)", "RTX FP16 weights (MiB)") if with_rtx else ())
    columns += map(Column, ("FPS", "Latency (ms)", *(("Latency p90 (ms)",) if with_p90 else ())))
    columns += map(Column, ("Ratio", "Ratio 95 % CI", "AP"))
    if with_paper:
        columns += [Column(name, source=SOURCE) for name in ("Mem", "FPS", "Latency (ms)", "Ratio", "AP")]
    table = Table(title(record), columns, notes=_notes(record))
    for row in record.rows:
        cells = _measured_cells(record, row, with_rtx=with_rtx, with_p90=with_p90)
        table.add(*cells, *(_paper_cells(record, row) if with_paper else ()))
    return table


def _measured_cells(record: Record, row: Row, *, with_rtx: bool, with_p90: bool) -> list[str | None]:
    ratio = record.ratio(row)
    cells = [row.model, attention_title(row.attention), row.complexity]
    cells += [fixed(row.params_m, 1), fixed(row.flops_g, 2), fixed(row.mem_mib, 1), fixed(row.weights_mib, 1)]
    if with_rtx:
        cells += [fixed(row.rtx.activation_mib, 2), fixed(row.rtx.weights_mib, 2)] if row.rtx else [None, None]
    cells += [fixed(row.fps, 2), fixed(row.latency_ms, 1)]
    if with_p90:
        cells.append(fixed(statistics.percentile(row.samples_ms, 90), 1))
    interval = None if row is record.baseline else f"{ratio.low:.3f} .. {ratio.high:.3f}"
    return [*cells, fixed(ratio.value, 3), interval, fixed(row.ap, 1)]


def _paper_cells(record: Record, row: Row) -> list[str | None]:
    paper = row.paper or {}
    ratio = paper_ratio(record, row)
    return [
        fixed(paper.get("mem_mb"), 2),
        fixed(paper.get("fps"), 0),
        fixed(paper.get("latency_ms"), 2),
        fixed(ratio, 3),
        fixed(paper.get("ap"), 1),
    ]


def _notes(record: Record) -> list[str]:
    """Definitions, conditions, and what is shaky."""
    harness = record.harness
    percent = 100 * harness.worst_ms / record.baseline.latency_ms
    threads = f"{record.threads} threads" if record.threads else "the backend's own number of threads"
    notes = [
        f"Latency: median of {record.rounds} single inferences, each after an untimed one,"
        " input and outputs on the host."
        f" Ratio: median over rounds of latency over {record.baseline.model}'s, with its bootstrap 95 % interval.",
        "FPS: back-to-back queries / wall time, measured apart from latency, never its inverse. Batch 1.",
        f"Mem: peak resident set of a fresh process that loads the model and runs it {INFERENCES} times, minus that"
        " before loading. Weights: initialisers of the ONNX file. MiB = 2^20 bytes.",
        "#Params and FLOPs: of the PyTorch model, as the contract states them.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {threads}; {record.measured_at}.",
        f"Harness: {1e3 * harness.worst_ms:.1f} us per inference, {percent:.4f} % of the baseline (null runner).",
    ]
    if any(row.rtx for row in record.rows):
        notes.append(
            "RTX FP16: what TensorRT-RTX plans for the FP16 graph compiled for SM86; nothing was run on a GPU."
        )
    if all(row.ap is None for row in record.rows):
        notes.append("AP: a dash until the same artifact has been evaluated.")
    if any(row.random_weights for row in record.rows):
        notes.append("These are random weights: speed is real, detections are not.")
    if any(row.paper for row in record.rows):
        notes.append(
            f"Columns marked {SOURCE} are the paper's: Jetson Orin Nano, TensorRT 10.7, FP16; its Mem is"
            " FP32 activation of unfused attention. Figures of this CPU are not Jetson figures; only ratios can be set"
            " beside each other, with care."
        )
    if record.quick:
        notes.append("Quick look: too few samples to quote.")
    if record.estimate:
        notes.insert(0, "ESTIMATE: computed by a model of the device; nothing was measured.")
    return notes + [f"Warning: {text}." for text in record.warnings()]
