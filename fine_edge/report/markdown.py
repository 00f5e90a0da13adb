"""Records as Markdown, for ``bench/RESULTS.md``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fine_edge.bench.record import Record
from fine_edge.bench.render import to_table
from fine_edge.report.provenance import files_table

_HEAD = """# Results
Generated from the records named below; edit nothing here. How each figure is measured: [METHOD.md](METHOD.md).

```
python -m fine_edge.report bench/results/*.json --markdown bench/RESULTS.md
```
"""


def to_markdown(records: Sequence[tuple[Path, Record]], folder: Path) -> str:
    """The text of a Markdown file in ``folder``: measured records, then estimates under a heading of their own."""
    measured = [part for path, record in records if not record.estimate for part in _section(path, record, folder)]
    estimates = [part for path, record in records if record.estimate for part in _section(path, record, folder)]
    if estimates:
        estimates.insert(0, "## ESTIMATES: computed, not measured\n")
    return "\n".join([_HEAD, *measured, *estimates])


def _section(path: Path, record: Record, folder: Path) -> list[str]:
    place = Path(os.path.relpath(path, folder)).as_posix()
    picture = path.with_suffix(".png")
    parts = [to_table(record).to_markdown(), f"Record: [`{path.name}`]({place})\n"]
    if picture.exists():
        parts.append(f"![Latency overhead, {record.title}]({Path(place).with_suffix('.png').as_posix()})\n")
    return [*parts, files_table(record).to_markdown().replace("### Files", "#### Files", 1)]
