"""What every table of a record says below it, whatever the backend."""

from __future__ import annotations

from fine_edge.bench.columns import ACCURACY, metrics
from fine_edge.bench.memory import MOST_PROCESS_MIB
from fine_edge.bench.paper import paper_fps_ratio
from fine_edge.bench.record import Record


def ratio_note(record: Record) -> str:
    """What the ratio is."""
    base = "the baseline's, the first row of its group," if record.is_grouped else f"{record.rows[0].model}'s,"
    return f"Ratio: median over rounds of latency over {base} with its bootstrap 95 % interval."


def harness_note(record: Record) -> str:
    """What measuring costs."""
    of = "fastest baseline" if record.is_grouped else "baseline"
    return f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference, {record.harness_percent:.4f} % of the {of}"


def group_notes(record: Record) -> list[str]:
    """How groups were measured, and what memory the process took for them."""
    notes = []
    if record.is_grouped:
        notes.append("Groups are measured one after the other, each in rounds of its own and alone in memory.")
    if record.groups:
        peaks = [f"{group.process_peak_mib:.0f} MiB ({group.baseline})" for group in record.groups]
        notes.append(f"Process: highest resident set of the measuring process by group, {', '.join(peaks)}.")
    heavy = [group.baseline for group in record.groups if group.process_peak_mib > MOST_PROCESS_MIB]
    if heavy:
        limit = f"{MOST_PROCESS_MIB / 1024:g} GiB"
        notes.append(f"Warning: the process took more than {limit} with {', '.join(heavy)}.")
    return notes


def fps_ratio_note(record: Record) -> list[str]:
    """What the ratio of FPS is, where there is one."""
    ratios = [ratio for row in record.rows if not record.is_baseline(row) and (ratio := paper_fps_ratio(record, row))]
    if not ratios:
        return []
    rounding = 100 * max(max(ratio.high - ratio.value, ratio.value - ratio.low) for ratio in ratios)
    return [
        "FPS ratio: the baseline's FPS over the row's, a ratio of throughputs. The paper prints whole FPS, so its ratio"
        f" is known to within {rounding:.1f} %."
    ]


def accuracy_note(record: Record) -> list[str]:
    """What accuracies are of, and why there are dashes."""
    missing = [ACCURACY[metric] for metric in metrics(record) if all(metric not in row.accuracy for row in record.rows)]
    return [
        *([f"Accuracy: on {record.accuracy_data}, of the same files by sha256."] if record.accuracy_data else []),
        *([f"{', '.join(missing)}: a dash until the same artifact has been evaluated."] if missing else []),
    ]


def weights_note(record: Record) -> list[str]:
    """Whether detections mean anything."""
    is_random = any(row.random_weights for row in record.rows)
    return ["These are random weights: speed is real, detections are not."] if is_random else []


def with_doubts(record: Record, notes: list[str]) -> list[str]:
    """The notes, and what speaks against the figures."""
    first = ["ESTIMATE: computed by a model of the device; nothing was measured."] if record.estimate else []
    quick = ["Quick look: too few samples to quote."] if record.quick else []
    return [*first, *notes, *quick, *(f"Warning: {text}." for text in record.warnings())]
