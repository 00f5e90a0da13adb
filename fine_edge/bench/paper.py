"""Set the paper's figures beside ours: whether a column means the same, and only then the difference.

The paper: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640; FPS and latency fit trtexec's separate "throughput" and
"latency" (see METHOD.md). It does not name the power mode. Table 3 has both, Table 1 has FPS alone.
"""

from __future__ import annotations

from fine_edge.bench.record import Record, Row
from fine_edge.samples import Ratio

BACKEND_TITLES = {"onnxruntime-cpu": "ONNX Runtime (CPU)", "tensorrt": "TensorRT"}

# Metrics, as :mod:`fine_edge.zoo.paper` names them, in the order of their columns.
ACCURACY = {
    "ap": "AP",
    "ap50": "AP50",
    "ap_s": "AP S",
    "ap_m": "AP M",
    "ap_l": "AP L",
    "mask_ap": "Mask AP",
    "miou": "mIoU",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
}


def metrics(record: Record) -> list[str]:
    """Return the metrics that were evaluated or that the paper has, AP where there is neither."""
    found = {key for row in record.rows for key in (*row.accuracy, *(row.paper or ()))}
    return [metric for metric in ACCURACY if metric in found] or ["ap"]


def attention_title(attention: str | None) -> str | None:
    """Return the paper's spelling of an attention strategy."""
    return {"aats": "AATS"}.get(attention, attention.capitalize()) if attention else None


def fixed(value: float | None, digits: int) -> str | None:
    """Return a number with so many digits behind the point; ``None`` stays ``None``."""
    return None if value is None else f"{value:.{digits}f}"


def size_text(input_hw: tuple[int, int]) -> str:
    """Return width x height, the order in which pictures are described."""
    height, width = input_hw
    return f"{width}x{height}"


def power_modes(record: Record) -> list[str]:
    """Return the board's power modes while a record was measured; empty where they could not be read."""
    states = [row.state for row in record.rows if row.state]
    return sorted({snapshot.mode for state in states for snapshot in state.snapshots if snapshot.mode})


def conditions(record: Record) -> str:
    """Return machine, threads, backend, precision and input size in one line."""
    sizes = size_text(record.input_hw) if record.input_hw else "input sizes as listed"
    precisions = {row.precision or record.precision for row in record.rows}
    precision = f"{record.precision.upper() if len(precisions) == 1 else 'precisions as listed'}, {sizes}"
    backend = BACKEND_TITLES.get(record.backend, record.backend)
    platform = record.platform or {}
    if record.backend == "tensorrt":
        versions = [f"{backend} {platform.get('tensorrt') or 'of unknown version'}"]
        versions += [f"L4T {platform['l4t']}"] if platform.get("l4t") else []
        device = record.machine.get("gpu") or platform.get("gpu") or record.machine.get("cpu")
        modes = [f"mode {'/'.join(power_modes(record))}"] if power_modes(record) else []
        return ", ".join([str(device), *modes, *versions, precision])
    library = record.machine.get("libraries", {}).get("onnxruntime")
    backend += f" {library}" if library else ""
    cores = f"{record.machine.get('cores')} cores"
    if record.threads:  # asked for; otherwise the backend takes all cores
        cores += f" of which {record.threads} used"
    return f"{record.machine.get('cpu')}, {cores}, {backend}, {precision}"


def title(record: Record) -> str:
    """Return a table's title: what was measured, where, and in how many rounds."""
    kind = ("ESTIMATE, " if record.estimate else "") + ("QUICK LOOK, " if record.quick else "")
    return f"{record.title} ({kind}{conditions(record)}, {rounds_text(record)})"


def rounds_text(record: Record) -> str:
    """Return how many rounds each row was measured."""
    most = max(len(row.samples_ms) for row in record.rows)
    return f"{record.rounds} rounds" if most == record.rounds else f"{record.rounds} to {most} rounds"


SOURCE = "paper (Orin Nano)"
DEVICE = "Orin Nano"
TENSORRT = "10.7"
INPUT_HW = (640, 640)
# FPS are printed as whole numbers.
_FPS_ROUNDING = 0.5


def paper_source(record: Record) -> str:
    """Return the source of the paper's figures; it names the device where any of them was timed."""
    timed = any((row.paper or {}).get(key) for row in record.rows for key in ("fps", "latency_ms"))
    return SOURCE if timed else "paper"


def paper_latency_ratio(record: Record, row: Row) -> float | None:
    """Return the paper's latency of a row over its baseline's, where it has both."""
    mine, base = _both(record, row, "latency_ms")
    return mine / base if mine and base else None


def paper_fps_ratio(record: Record, row: Row) -> Ratio | None:
    """Return the baseline's FPS over the row's in the paper, with its bounds by rounding, where it has no latencies."""
    mine, base = _both(record, row, "fps")
    if not mine or not base or min(mine, base) <= _FPS_ROUNDING or paper_latency_ratio(record, row):
        return None
    low = (base - _FPS_ROUNDING) / (mine + _FPS_ROUNDING)
    return Ratio(base / mine, low, (base + _FPS_ROUNDING) / (mine - _FPS_ROUNDING))


def fps_ratio(record: Record, row: Row) -> float | None:
    """Return our ratio of FPS where the paper has one (see :func:`paper_fps_ratio`)."""
    return record.baseline_of(row).fps / row.fps if paper_fps_ratio(record, row) else None


def _both(record: Record, row: Row, key: str) -> tuple[float | None, float | None]:
    return (row.paper or {}).get(key), (record.baseline_of(row).paper or {}).get(key)


def obstacles(record: Record) -> list[str]:
    """Return why a record's figures must not be set beside the paper's; empty where nothing speaks against it."""
    platform = record.platform or {}
    gpu = f"{record.machine.get('gpu') or ''} {platform.get('gpu') or ''}"
    tensorrt = str(platform.get("tensorrt") or "")
    precisions = sorted({row.precision or record.precision for row in record.rows} - {"fp16", "fp16-weak"})
    sizes = sorted({row.input_hw for row in record.rows} - {INPUT_HW})
    found = [
        ("it is an estimate", record.estimate),
        (f"measured with {record.backend}, not TensorRT", record.backend != "tensorrt"),
        (f"not measured on an {DEVICE}", DEVICE not in gpu),
        (f"TensorRT {tensorrt or 'unknown'}, not {TENSORRT}", not f"{tensorrt}.".startswith(f"{TENSORRT}.")),
        (f"{', '.join(precisions)}, not fp16", bool(precisions)),
        (f"input {', '.join(map(size_text, sizes))}, not 640x640", bool(sizes)),
    ]
    return [reason for reason, holds in found if holds]


def agreements(record: Record) -> dict[str, str]:
    """Return, for each of the paper's columns in the record, whether ours has the same definition."""
    reasons = obstacles(record)

    def speed(definition: str) -> str:
        return f"not comparable: {'; '.join(reasons)}" if reasons else f"same definition ({definition})"

    present = {key for row in record.rows for key, value in (row.paper or {}).items() if value is not None}
    latencies = any(paper_latency_ratio(record, row) for row in record.rows)
    throughputs = any(paper_fps_ratio(record, row) for row in record.rows)
    meanings = {
        "FPS": ("fps" in present, speed("queries / wall time, back to back; ours also fills the pinned input")),
        "Latency": ("latency_ms" in present, speed("median of H2D + compute + D2H")),
        "Ratio": (latencies, speed("latency over the baseline's; ours is paired by round")),
        "FPS ratio": (throughputs, speed("the baseline's FPS over the row's; the paper's are of whole numbers")),
        "AP": ("ap" in present, "COCO AP of the record's own weights, where they were evaluated"),
        "Mem": ("mem_mb" in present, speed("the engine's context memory; ours is the column Activation")),
    }
    return {column: text for column, (is_present, text) in meanings.items() if is_present}


def difference_percent(ours: float | None, paper: float | None) -> float | None:
    """Return how much larger our figure is, in per cent of the paper's."""
    return None if ours is None or not paper else 100 * (ours / paper - 1)
