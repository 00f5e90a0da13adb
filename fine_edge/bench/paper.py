"""The paper's figures beside ours: whether a column means the same, and only then how far apart they are.

The paper: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640; FPS and latency fit trtexec's separate "throughput" and
"latency" (see METHOD.md). It does not name the power mode.
"""

from __future__ import annotations

from fine_edge.bench.record import Record, Row

SOURCE = "paper (Orin Nano)"
DEVICE = "Orin Nano"
TENSORRT = "10.7"
INPUT_HW = (640, 640)
_MEM = "never the same: the paper's is FP32 activation of unfused attention, not of the FP16 engine that was timed"


def paper_ratio(record: Record, row: Row) -> float | None:
    """The paper's latency of a row over its baseline's, where it has both."""
    mine = (row.paper or {}).get("latency_ms")
    base = (record.baseline.paper or {}).get("latency_ms")
    return mine / base if mine and base else None


def obstacles(record: Record) -> list[str]:
    """What keeps a record's milliseconds from being set beside the paper's; empty where nothing does."""
    platform = record.platform or {}
    gpu = f"{record.machine.get('gpu') or ''} {platform.get('gpu') or ''}"
    tensorrt = str(platform.get("tensorrt") or "")
    precisions = sorted({row.precision or record.precision for row in record.rows} - {"fp16", "fp16-weak"})
    found = [
        ("it is an estimate", record.estimate),
        (f"measured with {record.backend}, not TensorRT", record.backend != "tensorrt"),
        (f"not measured on an {DEVICE}", DEVICE not in gpu),
        (f"TensorRT {tensorrt or 'unknown'}, not {TENSORRT}", not f"{tensorrt}.".startswith(f"{TENSORRT}.")),
        (f"{', '.join(precisions)}, not fp16", bool(precisions)),
        (f"input {record.input_hw[1]}x{record.input_hw[0]}, not 640x640", record.input_hw != INPUT_HW),
    ]
    return [reason for reason, holds in found if holds]


def agreements(record: Record) -> dict[str, str]:
    """For each of the paper's columns, whether ours is of the same definition, in words."""
    reasons = obstacles(record)
    ours = {
        "FPS": "queries / wall time, back to back; ours also fills the pinned input, trtexec does not",
        "Latency": "median of H2D + compute + D2H",
        "Ratio": "latency over the baseline's; ours is paired by round",
    }
    said = {
        column: f"not comparable: {'; '.join(reasons)}" if reasons else f"same definition ({definition})"
        for column, definition in ours.items()
    }
    said["AP"] = "COCO AP of the record's own weights, where they were evaluated"
    said["Mem"] = _MEM
    return said


def difference_percent(ours: float | None, paper: float | None) -> float | None:
    """How much more ours is, in per cent of the paper's."""
    return None if ours is None or not paper else 100 * (ours / paper - 1)
