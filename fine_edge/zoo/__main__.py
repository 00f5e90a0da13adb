"""``python -m fine_edge.zoo``: every model with its #Params and FLOPs beside the paper's."""

from __future__ import annotations

import argparse
from typing import Any

from fine_edge import command, console
from fine_edge.errors import MissingExtraError
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import CATALOG, find

INPUT_SIZE_PX = 640


def count_rows(names: list[str]) -> list[dict[str, Any]]:
    """#Params and FLOPs of the named models at 640x640, batch 1."""
    try:
        from fine_edge.zoo import rtdetr
        from fine_edge.zoo.count import count
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export") from error

    rows = []
    with console.progress() as bar:
        task = bar.add_task("counting", total=len(names))
        for name in names:
            entry = find(name)
            cost = count(rtdetr.build(entry), entry.family, INPUT_SIZE_PX, INPUT_SIZE_PX)
            paper = entry.paper and {
                "table": entry.paper.table,
                "params_m": entry.paper.params_m,
                "flops_g": entry.paper.flops_g,
            }
            rows.append(
                {
                    "model": name,
                    "fusion": entry.fusion,
                    "attention": entry.attention,
                    "params_m": round(cost.params_m, 3),
                    "flops_g": round(cost.flops_g, 3),
                    "paper": paper,
                    "note": entry.note,
                    "convention": cost.convention,
                }
            )
            bar.advance(task)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as people read them: measured, the paper's, and the difference."""
    view = Table(
        f"Models, counted at {INPUT_SIZE_PX}x{INPUT_SIZE_PX}, batch 1",
        [
            Column("model", numeric=False),
            Column("fusion", numeric=False),
            Column("attention", numeric=False),
            Column("#Params (M)"),
            Column("FLOPs (G)"),
            Column("#Params (M)", source="paper"),
            Column("FLOPs (G)", source="paper"),
            Column("Δ (M)"),
            Column("Δ (G)"),
        ],
    )
    for row in rows:
        paper = row["paper"]
        view.add(
            row["model"],
            row["fusion"],
            row["attention"],
            f"{row['params_m']:.2f}",
            f"{row['flops_g']:.2f}",
            paper and f"{paper['params_m']:.1f}",
            paper and f"{paper['flops_g']:.2f}",
            paper and f"{row['params_m'] - paper['params_m']:+.2f}",
            paper and f"{row['flops_g'] - paper['flops_g']:+.2f}",
        )
    view.notes = [f"FLOPs: {convention}." for convention in sorted({row["convention"] for row in rows})]
    view.notes += [f"{row['model']}: {row['note']}" for row in rows if row["note"]]
    return view


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fine_edge.zoo", description=main.__doc__ and __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these models (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    rows = count_rows(args.models or list(CATALOG))
    if args.json:
        console.print_json(rows)
    else:
        table(rows).print(console.out)
    return 0


if __name__ == "__main__":
    command.run(main)
