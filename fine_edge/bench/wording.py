"""How records are spoken of in tables, pictures and reports."""

from __future__ import annotations

from fine_edge.bench.record import Record

BACKEND_TITLES = {"onnxruntime-cpu": "ONNX Runtime (CPU)", "tensorrt": "TensorRT"}


def attention_title(attention: str | None) -> str | None:
    """The paper's spelling of an attention strategy."""
    return {"aats": "AATS"}.get(attention, attention.capitalize()) if attention else None


def fixed(value: float | None, digits: int) -> str | None:
    """A number with so many digits behind the point; nothing stays nothing."""
    return None if value is None else f"{value:.{digits}f}"


def size_text(input_hw: tuple[int, int]) -> str:
    """Width x height, as pictures are spoken of."""
    height, width = input_hw
    return f"{width}x{height}"


def power_modes(record: Record) -> list[str]:
    """The board's power modes while a record was measured; empty where they could not be read."""
    states = [row.state for row in record.rows if row.state]
    return sorted({snapshot.mode for state in states for snapshot in state.snapshots if snapshot.mode})


def conditions(record: Record) -> str:
    """Machine, threads, backend, precision and input size in one line."""
    sizes = size_text(record.input_hw) if record.input_hw else "input sizes as listed"
    precision = f"{record.precision.upper()}, {sizes}"
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
    if record.threads:  # where it was said how many; the backend takes all cores otherwise
        cores += f" of which {record.threads} used"
    return f"{record.machine.get('cpu')}, {cores}, {backend}, {precision}"


def title(record: Record) -> str:
    """Of a table: what, where, how long."""
    kind = ("ESTIMATE, " if record.estimate else "") + ("QUICK LOOK, " if record.quick else "")
    return f"{record.title} ({kind}{conditions(record)}, {rounds_text(record)})"


def rounds_text(record: Record) -> str:
    """How many rounds each row was measured."""
    most = max(len(row.samples_ms) for row in record.rows)
    return f"{record.rounds} rounds" if most == record.rounds else f"{record.rounds} to {most} rounds"
