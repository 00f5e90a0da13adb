"""``sweep``: what FINE's choices would cost on the board, latency against FLOPs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from fine_edge import console
from fine_edge.estimate.arguments import add_board, read_board
from fine_edge.estimate.engine import engine_work
from fine_edge.estimate.latency import Estimate, estimate
from fine_edge.estimate.outputs import add_outputs, check_outputs, deliver
from fine_edge.estimate.picture import write_sweep
from fine_edge.estimate.render import MARK, notes, place
from fine_edge.estimate.variants import AXES, BASELINE, DEFAULTS, MODEL, Variant, export_variant, variants
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
    add_outputs(made, picture="PNG (default: in --out)")
    return made


def sweep(argv: list[str], export: Export = export_variant) -> int:
    """Run it; ``export`` makes the graph of one variant."""
    given = parser().parse_args(argv)
    chosen = variants(given.over, given.values)
    given.picture = given.picture or given.out / f"sweep_{given.over}.png"
    check_outputs(given)
    device, mode, calibration = read_board(given)
    # Each detector without FINE once, right before what is compared with it.
    points = list(dict.fromkeys(point for variant in chosen for point in (variant.without_fine, variant)))
    found: dict[Variant, Estimate] = {}
    for number, point in enumerate(points, 1):
        console.remark(f"[{number}/{len(points)}] {point.label}")
        name = f"{MODEL if point.has_fine else BASELINE}, {point.label}"
        found[point] = estimate(engine_work(export(point, given.out), device, name), device, mode, calibration)
    title = f"{MODEL} over {given.over}"
    data = {"estimate": True, "title": title, "rows": [row.to_json() for row in found.values()]}
    deliver(given, data, [_table(title, found)], lambda path: write_sweep(title, found, path))
    return 0


def _table(title: str, found: Mapping[Variant, Estimate]) -> Table:
    first = next(iter(found.values()))
    columns = ["GFLOP", "Kernels", "Latency (ms)", "from", "to", "FPS", "FINE adds (ms)"]
    table = Table(
        f"{MARK}: {title}, on {place(first)}",
        [Column("Choice", numeric=False), *map(Column, columns)],
        notes=[*notes(first)[:2], "What FINE adds is against the detector without it at the same input size."],
    )
    for point, row in found.items():
        times = (row.latency_ms, row.latency_ms_low, row.latency_ms_high)
        added_ms = row.latency_ms - found[point.without_fine].latency_ms
        table.add(
            point.label,
            f"{row.engine.graph_flops / 1e9:.2f}",
            len(row.kernels),
            *(f"{ms:.2f}" for ms in times),
            f"{row.fps:.1f}",
            f"{added_ms:+.2f}" if point.has_fine else None,
        )
    return table
