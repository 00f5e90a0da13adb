"""``python -m fine_edge.graph fp16 FILE.onnx --images DIR``: what FP16 would lose, and an FP16 file that does not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import console
from fine_edge.atomic import write_text
from fine_edge.graph.budget import BudgetRow
from fine_edge.graph.fp16_file import check_target, write_fp16
from fine_edge.graph.fp16_study import Study, study
from fine_edge.graph.keep_list import read_keep_list, write_keep_list
from fine_edge.graph.layer_precisions import LONGEST_ARGUMENT, layer_precisions
from fine_edge.graph.network import read_network
from fine_edge.images import Pictures
from fine_edge.parity.tolerance import TOLERANCES
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    # argparse gives this class no public name.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(commands: Commands) -> None:
    """Add ``fp16`` to the commands of ``fine_edge.graph``."""
    parser = commands.add_parser("fp16", help="what FP16 would lose on real pictures, and how to keep it")
    parser.add_argument("onnx", type=Path, help="the FP32 file, its contract beside it if it has one")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="pictures, or folders of them")
    parser.add_argument("--keep-fp32", type=Path, metavar="FILE", help="nodes that stay FP32 anyway, one a line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the FP16 file, if it keeps its detections")
    parser.add_argument(
        "--keep-list", type=Path, metavar="FILE", help="write the nodes that export --keep-fp32 must be given"
    )
    parser.add_argument(
        "--layer-precisions",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write trtexec's arguments for an engine built with --fp16 from the FP32 file (default: print them)",
    )
    parser.add_argument("--json", action="store_true", help="hazards, budget and proposal as JSON")


def run_command(arguments: argparse.Namespace) -> int:
    """Run it; 1 when the conversion proposed does not keep the detections."""
    if arguments.out:
        check_target(arguments.onnx, arguments.out)
    keep = read_keep_list(arguments.keep_fp32) if arguments.keep_fp32 else ()
    images = Pictures(arguments.images).readable()
    found = study(read_network(arguments.onnx), images, keep)
    if arguments.json:
        console.print_json(found.to_json())
    else:
        _print(found)
    _write(found, arguments)
    return 1 if found.ok is False else 0


def _print(found: Study) -> None:
    if found.hazards:
        hazard_table(found).print(console.out)
    else:
        console.out.print(f"{found.network.path.name}: no open FP16 hazard", highlight=False)
    if found.rows:
        budget_table(found.rows).print(console.out)
    for note in found.notes():
        console.out.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)
    console.out.print(verdict(found), highlight=False, markup=False, soft_wrap=True)


def hazard_table(found: Study) -> Table:
    """One row per open hazard, the worst first."""
    columns = [Column("Tensor", False), Column("Node", False), Column("Max abs"), Column("Keep FP32", False)]
    table = Table(f"{found.network.path.name}: FP16 hazards", [*columns, Column("Reason", False)])
    for hazard in found.hazards:
        keep = "yes" if hazard.keep_fp32 else "no"
        table.add(hazard.tensor, hazard.node, f"{hazard.max_abs:.4g}", keep, hazard.reason)
    if found.proposed:
        table.notes.append(f"Proposed to stay FP32 ({len(found.proposed)}): {', '.join(found.proposed)}.")
    return table


def budget_table(rows: Sequence[BudgetRow]) -> Table:
    """One row per module, then the whole graph."""
    titles = ["box median (px)", "box p90 (px)", "box max (px)", "score median", "score p90", "score max", "flipped"]
    table = Table(
        "Drift of the detections against FP32, one module in FP16 at a time",
        [Column("in FP16", False), Column("nodes"), *map(Column, titles)],
    )
    for row in rows:
        if row.drift is None:
            table.add(row.module, row.nodes, *[None] * len(titles))
            table.notes.append(f"{row.module} cannot be converted: {row.refused}.")
            continue
        boxes = [f"{value:.3f}" for value in row.drift.box_px] if row.drift.box_px else [None] * 3
        scores = [f"{value:.4f}" for value in row.drift.score] if row.drift.score else [None] * 3
        table.add(row.module, row.nodes, *boxes, *scores, f"{row.drift.flipped_share:.2%}")
    return table


def verdict(found: Study) -> str:
    """One line: whether the conversion proposed keeps the detections."""
    limit = TOLERANCES["fp16"]
    limits = f"flipped {limit.flipped:.0%}, p90 of boxes {limit.box_px:g} px, p90 of scores {limit.score:g}"
    if found.ok is None:
        return "parity: not proved, the outputs are not detections"
    return f"parity of '{found.rows[-1].module}': {'ok' if found.ok else 'FAILS'} (limits: {limits})"


def _write(found: Study, arguments: argparse.Namespace) -> None:
    if arguments.keep_list:
        write_keep_list(arguments.keep_list, found.beyond_exporter, found.network.path.name)
        console.remark(f"{len(found.beyond_exporter)} nodes -> {arguments.keep_list}")
    if arguments.layer_precisions:
        _write_layer_precisions(found, arguments.layer_precisions, as_json=arguments.json)
    if arguments.out and found.ok is False:
        console.warn(f"{arguments.out} is not written: the conversion loses detections")
    elif arguments.out:
        write_fp16(found, arguments.out)
        console.remark(f"FP16, {len(found.keep_fp32)} nodes in FP32 -> {arguments.out}")


def _write_layer_precisions(found: Study, target: str, *, as_json: bool) -> None:
    text = layer_precisions(found.keep_fp32, found.view)
    if max(map(len, text.splitlines()), default=0) > LONGEST_ARGUMENT:
        console.warn("trtexec's arguments are longer than a shell takes: use the FP16 file instead")
    if target != "-":
        write_text(Path(target), text)
        console.remark(f"trtexec --onnx={found.network.path.name} --fp16 $(cat {target})")
    elif not as_json:  # JSON holds them already
        console.out.print(text or "no layer needs FP32", highlight=False, markup=False, soft_wrap=True, end="")
