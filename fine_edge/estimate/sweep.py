"""``sweep``: what FINE's choices would cost on the board, latency against FLOPs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from fine_edge import console
from fine_edge.estimate.arguments import add_board, read_board
from fine_edge.estimate.engine import engine_work
from fine_edge.estimate.latency import Estimate, estimate
from fine_edge.estimate.picture import write_sweep
from fine_edge.estimate.render import MARK, notes, place
from fine_edge.estimate.variants import AXES, DEFAULTS, MODEL, Variant, export_variant, variants
from fine_edge.table import Column, Table

Export = Callable[[Variant, Path], Path]


def parser() -> argparse.ArgumentParser:
    """Of ``sweep``."""
    made = argparse.ArgumentParser(
        prog="python -m fine_edge.estimate sweep",
        description=f"Latency of {MODEL} with other choices of FINE, each exported (needs torch) and compiled.",
    )
    made.add_argument("--over", required=True, metavar="AXIS", help=f"{', '.join(AXES)}; width: of the feed-forward")
    usual = "; ".join(f"{axis}: {','.join(values)}" for axis, values in DEFAULTS.items())
    made.add_argument("--values", metavar="A,B,...", help=f"default: {usual}")
    add_board(made)
    folder = Path("engines/sweep")
    made.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"ONNX files (default: {folder})")
    made.add_argument("--picture", type=Path, metavar="FILE", help="PNG (default: in --out)")
    made.add_argument("--json", type=Path, metavar="FILE", help="estimates as JSON; - for standard output")
    return made


def sweep(argv: list[str], export: Export = export_variant) -> int:
    """Run it; ``export`` makes the graph of one variant."""
    given = parser().parse_args(argv)
    chosen = variants(given.over, given.values)
    device, mode, calibration = read_board(given)
    found: list[tuple[str, Estimate]] = []
    for number, variant in enumerate(chosen, 1):
        console.remark(f"[{number}/{len(chosen)}] {variant.label}")
        engine = engine_work(export(variant, given.out), device, f"{MODEL}, {variant.label}")
        found.append((variant.label, estimate(engine, device, mode, calibration)))
    title = f"{MODEL} over {given.over}"
    if given.json == Path("-"):
        console.print_json({"estimate": True, "title": title, "rows": [row.to_json() for _, row in found]})
    else:
        _table(title, found).print(console.out)
    picture = given.picture or given.out / f"sweep_{given.over}.png"
    write_sweep(title, found, picture)
    console.remark(f"picture: {picture}")
    return 0


def _table(title: str, found: Sequence[tuple[str, Estimate]]) -> Table:
    columns = ["GFLOP", "Kernels", "Latency (ms)", "from", "to", "FPS", "Of it FINE (ms)"]
    table = Table(
        f"{MARK}: {title}, on {place(found[0][1])}",
        [Column("Choice", numeric=False), *map(Column, columns)],
        notes=notes(found[0][1])[:2],
    )
    for label, row in found:
        fine_ms = sum(ms for module, ms in row.module_ms().items() if module.startswith("fine"))
        times = (row.latency_ms, row.latency_ms_low, row.latency_ms_high)
        table.add(
            label,
            f"{row.engine.graph_flops / 1e9:.2f}",
            len(row.kernels),
            *(f"{ms:.2f}" for ms in times),
            f"{row.fps:.1f}",
            f"{fine_ms:.2f}",
        )
    return table
