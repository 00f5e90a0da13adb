"""Write records as Markdown, for ``bench/RESULTS.md``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fine_edge.bench.imported import ImportedRecord
from fine_edge.bench.imported_table import imported_table
from fine_edge.bench.record import Record
from fine_edge.bench.sources import Measurements
from fine_edge.bench.table import to_table
from fine_edge.table import Column, Table

IMPORTED = "IMPORTED: measured by others with trtexec"
# Shown of a sha256; the record has all 64.
HASH_DIGITS = 16


def machine_facts(record: Record) -> list[tuple[str, str]]:
    """Return what the record says of the machine and of how it measured, by name."""
    machine, platform = record.machine, record.platform or {}
    facts: list[tuple[str, Any]] = [
        ("measured", record.measured_at),
        ("device", machine.get("gpu")),
        ("CPU", _joined(machine.get("cpu"), f"{machine.get('cores')} cores", machine.get("arch"))),
        ("memory", f"{machine.get('memory_gib')} GiB"),
        ("system", _joined(machine.get("os"), f"Python {machine.get('python')}")),
        ("libraries", _joined(*(f"{name} {value}" for name, value in (machine.get("libraries") or {}).items()))),
        ("platform", _joined(*(f"{name} {value}" for name, value in platform.items() if value is not None))),
        ("backend", record.backend + (", CUDA graph" if record.cuda_graph else "")),
        ("images", _joined(*record.images)),
        ("rounds", record.rounds),
        ("threads", record.threads),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def files_table(record: Record) -> Table:
    """Return precision, origin of the weights, and hashes by row."""
    with_engines = any(row.engine for row in record.rows)
    titles = ["Model", "Precision", "Weights", "ONNX sha256", *(("Engine sha256",) if with_engines else ())]
    table = Table("Files", [Column(title, numeric=False) for title in titles])
    for row in record.rows:
        engine = [row.engine.engine_sha256[:HASH_DIGITS] if row.engine else None] if with_engines else []
        weights = "random" if row.random_weights else "trained"
        table.add(row.model, row.precision or record.precision, weights, row.artifact_sha256[:HASH_DIGITS], *engine)
    return table


_HEAD = """# Results
Generated from the records named below; edit nothing here. How each figure is measured: [METHOD.md](METHOD.md).

```
python -m fine_edge report bench/results/*.json --markdown bench/RESULTS.md
```
"""


def to_markdown(records: Sequence[tuple[Path, Measurements]], folder: Path) -> str:
    """Return the text of a Markdown file in ``folder``.

    Measured records come first, then imported ones and estimates, each under a heading of their own.
    """
    parts: dict[str, list[str]] = {"": [], IMPORTED: [], "ESTIMATES: computed, not measured": []}
    _, _, estimates = parts
    for path, record in records:
        if isinstance(record, ImportedRecord):
            parts[IMPORTED] += [
                imported_table(record).to_markdown(),
                f"From: [`{path.name}`]({_place(path, folder)})\n",
            ]
        else:
            parts[estimates if record.estimate else ""] += _section(path, record, folder)
    return "\n".join([_HEAD, *(text for name, texts in parts.items() for text in _under(name, texts))])


def _under(name: str, texts: list[str]) -> list[str]:
    return [f"## {name}\n", *texts] if name and texts else texts


def _place(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _section(path: Path, record: Record, folder: Path) -> list[str]:
    place = _place(path, folder)
    picture = path.with_suffix(".png")
    parts = [to_table(record).to_markdown(), f"Record: [`{path.name}`]({place})\n"]
    if picture.exists():
        shown = "Throughput and latency" if record.is_over_batches else "Latency overhead"
        parts.append(f"![{shown}, {record.title}]({Path(place).with_suffix('.png').as_posix()})\n")
    return [*parts, files_table(record).to_markdown().replace("### Files", "#### Files", 1)]
