"""The paper's figures beside ours: whether a column means the same, and only then how far apart they are.

The paper: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640; FPS and latency fit trtexec's separate "throughput" and
"latency" (see METHOD.md). It does not name the power mode. Table 3 has both, Table 1 has FPS alone.
"""

from __future__ import annotations

from fine_edge.bench.record import Record, Row
from fine_edge.bench.statistics import Ratio
from fine_edge.bench.wording import size_text

SOURCE = "paper (Orin Nano)"
DEVICE = "Orin Nano"
TENSORRT = "10.7"
INPUT_HW = (640, 640)
# FPS are printed as whole numbers.
_FPS_ROUNDING = 0.5
_MEM = "never the same: the paper's is FP32 activation of unfused attention, not of the FP16 engine that was timed"


def paper_source(record: Record) -> str:
    """Whose the paper's figures are: with a device where any of them was timed on it."""
    timed = any((row.paper or {}).get(key) for row in record.rows for key in ("fps", "latency_ms"))
    return SOURCE if timed else "paper"


def paper_latency_ratio(record: Record, row: Row) -> float | None:
    """The paper's latency of a row over its baseline's, where it has both."""
    mine, base = _both(record, row, "latency_ms")
    return mine / base if mine and base else None


def paper_fps_ratio(record: Record, row: Row) -> Ratio | None:
    """The baseline's FPS over the row's in the paper, where it has no latencies: between its bounds by rounding."""
    mine, base = _both(record, row, "fps")
    if not mine or not base or min(mine, base) <= _FPS_ROUNDING or paper_latency_ratio(record, row):
        return None
    low = (base - _FPS_ROUNDING) / (mine + _FPS_ROUNDING)
    return Ratio(base / mine, low, (base + _FPS_ROUNDING) / (mine - _FPS_ROUNDING))


def fps_ratio(record: Record, row: Row) -> float | None:
    """Ours as :func:`paper_fps_ratio`, where there is that."""
    return record.baseline_of(row).fps / row.fps if paper_fps_ratio(record, row) else None


def _both(record: Record, row: Row, key: str) -> tuple[float | None, float | None]:
    return (row.paper or {}).get(key), (record.baseline_of(row).paper or {}).get(key)


def obstacles(record: Record) -> list[str]:
    """What keeps a record's milliseconds from being set beside the paper's; empty where nothing does."""
    platform = record.platform or {}
    gpu = f"{record.machine.get('gpu') or ''} {platform.get('gpu') or ''}"
    tensorrt = str(platform.get("tensorrt") or "")
    precisions = sorted({row.precision or record.precision for row in record.rows} - {"fp16", "fp16-weak"})
    sizes = sorted({record.input_hw_of(row) for row in record.rows} - {INPUT_HW})
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
    """For each of the paper's columns that the record has, whether ours is of the same definition, in words."""
    reasons = obstacles(record)

    def speed(definition: str) -> str:
        return f"not comparable: {'; '.join(reasons)}" if reasons else f"same definition ({definition})"

    known = {key for row in record.rows for key, value in (row.paper or {}).items() if value is not None}
    latencies = any(paper_latency_ratio(record, row) for row in record.rows)
    throughputs = any(paper_fps_ratio(record, row) for row in record.rows)
    said = {
        "FPS": ("fps" in known, speed("queries / wall time, back to back; ours also fills the pinned input")),
        "Latency": ("latency_ms" in known, speed("median of H2D + compute + D2H")),
        "Ratio": (latencies, speed("latency over the baseline's; ours is paired by round")),
        "FPS ratio": (throughputs, speed("the baseline's FPS over the row's; the paper's are of whole numbers")),
        "AP": ("ap" in known, "COCO AP of the record's own weights, where they were evaluated"),
        "Mem": ("mem_mb" in known, _MEM),
    }
    return {column: text for column, (present, text) in said.items() if present}


def difference_percent(ours: float | None, paper: float | None) -> float | None:
    """How much more ours is, in per cent of the paper's."""
    return None if ours is None or not paper else 100 * (ours / paper - 1)
