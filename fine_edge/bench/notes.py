"""What stands under a record's table: what a reader needs at once, and every definition and condition."""

from __future__ import annotations

from fine_edge.bench.end_to_end import QUALITY
from fine_edge.bench.memory import INFERENCES, MOST_PROCESS_MIB
from fine_edge.bench.paper import (
    ACCURACY,
    SOURCE,
    agreements,
    metrics,
    obstacles,
    paper_fps_ratio,
    paper_source,
)
from fine_edge.bench.record import Record
from fine_edge.table import brief


def is_on_device(record: Record) -> bool:
    """Return whether the record is of engines, whose figures mean what the paper's do."""
    return record.backend == "tensorrt"


def brief_of(record: Record) -> list[str]:
    """Return what a reader needs at once, doubts first; each line fits 100 columns for usual names."""
    lines = [
        *_estimate_note(record),
        *_quick_note(record),
        *_int8_note(record),
        *(f"Warning: {text}." for text in record.warnings_in_short()),
        *_process_warning(record),
        *_stamps_in_short(record),
        *_weights_note(record),
    ]
    lines += _stages_in_short(record)
    if record.accuracy_data:
        lines.append(f"Accuracy: on {record.accuracy_data}.")
    if any(row.paper for row in record.rows) and paper_source(record) == SOURCE:
        compare = "compare ratios, not milliseconds" if obstacles(record) else "definitions are the same"
        lines.append(f"{SOURCE}: TensorRT 10.7, FP16, 640x640; {compare}.")
    return brief(lines)


def _stamps_in_short(record: Record) -> list[str]:
    """Return one line for each stamp, with the first reason for it, and one for notes that speak against no row."""
    found: dict[str, list[str]] = {}
    for row in record.rows:
        if row.state and row.state.verdict.reasons:
            found.setdefault(row.state.verdict.stamp, []).append(row.state.verdict.reasons[0])
    notes = [row.state.verdict.notes[0] for row in record.rows if row.state and row.state.verdict.notes]
    rows = f"of {len(record.rows)} rows"
    return [
        *(f"{len(reasons)} {rows}: {stamp}, {reasons[0]}." for stamp, reasons in found.items()),
        *([f"{len(notes)} {rows}, note: {notes[0]}."] if notes else []),
    ]


def notes_of(record: Record) -> list[str]:
    """Return definitions, conditions, and what speaks against the figures."""
    conditions = _device_conditions(record) if is_on_device(record) else _host_conditions(record)
    return [
        *_estimate_note(record),
        *conditions,
        *_stage_notes(record),
        *_quick_note(record),
        *_int8_note(record),
        *(f"Warning: {text}." for text in record.warnings()),
    ]


def _stages_in_short(record: Record) -> list[str]:
    """Return what the figures of stages are of, and where preprocessing hides in one of them."""
    ways = [row.end_to_end for row in record.rows if row.end_to_end]
    if not ways:
        return []
    hidden = ["Preprocessing is inside compute: these graphs take frames."] if any(way.in_graph for way in ways) else []
    return ["Stages: JPEG in memory to detections; overlapped: through the threads of fine-edge stream.", *hidden]


def _stage_notes(record: Record) -> list[str]:
    """Return how stages were measured."""
    ways = [row.end_to_end for row in record.rows if row.end_to_end]
    if not ways:
        return []
    copies = (
        "H2D and D2H by CUDA events; total also holds what no event covers: pinned memory filled and copied out of"
        if any(way.h2d_ms for way in ways)
        else "H2D and D2H do not exist on this backend"
    )
    return [
        f"Stages: medians of {len(ways[0].total_ms)} rounds, the same picture for all rows of one, as a JPEG of quality"
        f" {QUALITY} in memory; {copies}. One by one: rounds / the sum of their totals. Overlapped: frames / wall time"
        f" through the threads of fine-edge stream (a decoding, a preprocessing, a finishing one beside the network's),"
        f" in {len(ways[0].overlapped)} slices.",
        *_stages_in_short(record)[1:],
    ]


def _estimate_note(record: Record) -> list[str]:
    return ["ESTIMATE: computed by a model of the device; nothing was measured."] if record.estimate else []


def _quick_note(record: Record) -> list[str]:
    return ["Quick look: too few samples to quote."] if record.quick else []


def _int8_note(record: Record) -> list[str]:
    has_int8 = "int8" in {row.precision or record.precision for row in record.rows}
    if not has_int8 or is_on_device(record):
        return []
    return ["INT8 on this CPU is no figure of a Jetson: what is FP16 in the graph runs in FP32 here."]


def _host_conditions(record: Record) -> list[str]:
    threads = f"{record.threads} threads" if record.threads else "the backend's own number of threads"
    notes = [
        f"Latency: median of {record.rounds} single inferences, each after an untimed one,"
        f" input and outputs on the host. {_ratio_note(record)}",
        "FPS: back-to-back queries / wall time, measured apart from latency, never its inverse. Batch 1.",
        f"Mem: peak resident set of a fresh process that loads the model and runs it {INFERENCES} times, minus that"
        " before loading. Weights: initialisers of the ONNX file. MiB = 2^20 bytes.",
        "#Params and FLOPs: of the PyTorch model, as the contract states them.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {threads}; {record.measured_at}.",
        f"{_harness_note(record)} (null runner).",
        *_group_notes(record),
    ]
    if any(row.rtx for row in record.rows):
        notes.append(
            "RTX FP16: what TensorRT-RTX plans for the FP16 graph compiled for SM86; nothing was run on a GPU."
        )
    notes += [*_accuracy_notes(record), *_weights_note(record)]
    if any(row.paper for row in record.rows):
        notes += [_paper_note(record), *_fps_ratio_note(record)]
    return notes


def _device_conditions(record: Record) -> list[str]:
    graph = "replayed from a CUDA graph" if record.cuda_graph else "enqueued without a CUDA graph"
    notes = [
        f"Latency: median of {record.rounds} queries, input to the device + compute + outputs to the host, as trtexec"
        f" defines it; {graph}. Compute: the network's GPU time alone. End-to-end: decoded picture in memory to"
        " detections, preprocessing included, by wall clock, in rounds of its own.",
        _ratio_note(record),
        "FPS: back-to-back queries / wall time, measured apart; the next query's input is copied while one computes."
        " Energy: of the whole module (VDD_IN) meanwhile. Batch 1.",
        "Plan: the file. Weights: inside the engine. Activation: device_memory_size_v2. Device delta: free memory"
        " before loading minus after the first run. Host delta: growth of the process. GPU and host share one memory"
        " here: none of them may be added. MiB = 2^20 bytes.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {record.measured_at}.",
        f"{_harness_note(record)}'s latency.",
        *_group_notes(record),
        *_stamp_notes(record),
        *_accuracy_notes(record),
        *_weights_note(record),
    ]
    if any(row.paper for row in record.rows):
        notes.append(f"Columns marked {SOURCE}: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640, power mode not named.")
        notes += [f"Against the paper, {column}: {meaning}." for column, meaning in agreements(record).items()]
        notes += _fps_ratio_note(record)
    return notes


def _ratio_note(record: Record) -> str:
    base = "the baseline's, the first row of its group," if record.is_grouped else f"{record.rows[0].model}'s,"
    return f"Ratio: median over rounds of latency over {base} with its bootstrap 95 % interval."


def _harness_note(record: Record) -> str:
    of = "fastest baseline" if record.is_grouped else "baseline"
    return f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference, {record.harness_percent:.4f} % of the {of}"


def _group_notes(record: Record) -> list[str]:
    """Return how groups were measured, and how much memory the process took for them."""
    notes = []
    if record.is_grouped:
        notes.append("Groups are measured one after the other, each in rounds of its own and alone in memory.")
    if record.groups:
        peaks = [f"{group.process_peak_mib:.0f} MiB ({group.baseline})" for group in record.groups]
        notes.append(f"Process: highest resident set of the measuring process by group, {', '.join(peaks)}.")
    return notes + _process_warning(record)


def _process_warning(record: Record) -> list[str]:
    heavy = [group.baseline for group in record.groups if group.process_peak_mib > MOST_PROCESS_MIB]
    limit = f"{MOST_PROCESS_MIB / 1024:g} GiB"
    return [f"Warning: the process took more than {limit} with {', '.join(heavy)}."] if heavy else []


def _stamp_notes(record: Record) -> list[str]:
    """Return each reason and each note once, with the rows that it holds for."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in record.rows:
        if row.state:
            verdict = row.state.verdict
            said = [*((verdict.stamp, reason) for reason in verdict.reasons), *(("Note", n) for n in verdict.notes)]
            for key in said:
                rows.setdefault(key, []).append(row.model)
    return [
        f"{stamp}, {'all rows' if len(models) == len(record.rows) else ', '.join(models)}: {reason}."
        for (stamp, reason), models in rows.items()
    ]


def _accuracy_notes(record: Record) -> list[str]:
    """Return the data that accuracies are of, and why there are dashes."""
    missing = [ACCURACY[metric] for metric in metrics(record) if all(metric not in row.accuracy for row in record.rows)]
    return [
        *([f"Accuracy: on {record.accuracy_data}, of the same files by sha256."] if record.accuracy_data else []),
        *([f"{', '.join(missing)}: a dash until the same artifact has been evaluated."] if missing else []),
    ]


def _weights_note(record: Record) -> list[str]:
    is_random = any(row.random_weights for row in record.rows)
    return ["These are random weights: speed is real, detections are not."] if is_random else []


def _paper_note(record: Record) -> str:
    source = paper_source(record)
    if source != SOURCE:
        return f"Columns marked {source} are the paper's, of weights that its authors trained."
    has_mem = any((row.paper or {}).get("mem_mb") for row in record.rows)
    mem = "; its Mem is the engine's context memory, to which ONNX Runtime has no equal" if has_mem else ""
    return (
        f"Columns marked {SOURCE} are the paper's: Jetson Orin Nano, TensorRT 10.7, FP16{mem}. Figures of this CPU are"
        " not Jetson figures; only ratios can be set beside each other, with care."
    )


def _fps_ratio_note(record: Record) -> list[str]:
    """Return what the ratio of FPS is, where there is one."""
    ratios = [ratio for row in record.rows if not record.is_baseline(row) and (ratio := paper_fps_ratio(record, row))]
    if not ratios:
        return []
    rounding = 100 * max(max(ratio.high - ratio.value, ratio.value - ratio.low) for ratio in ratios)
    return [
        "FPS ratio: the baseline's FPS over the row's, a ratio of throughputs. The paper prints whole FPS, so its ratio"
        f" is known to within {rounding:.1f} %."
    ]
