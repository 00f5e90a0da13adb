"""``fine-edge graph``: find without a GPU what TensorRT 10.7 refuses in an ONNX file, and what FP16 loses."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import console
from fine_edge.cli.arguments import (
    STDOUT,
    Parser,
    add_artifacts,
    add_explain,
    add_fine,
    add_input_size,
    add_json,
    deliver,
)
from fine_edge.cli.target import ONNX_TARGET, Target, refuse_options_of_models
from fine_edge.files import write_text
from fine_edge.fp16.budget import BudgetRow
from fine_edge.fp16.keep_list import read_keep_list, write_keep_list
from fine_edge.fp16.network import read_network
from fine_edge.fp16.study import EMULATION, LONGEST_ARGUMENT, Study, check_target, layer_precisions, study, write_fp16
from fine_edge.graph.checks import RULES, check
from fine_edge.graph.input_size import InputSize
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import Finding
from fine_edge.images import Pictures
from fine_edge.parity.report import TOLERANCES
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    # argparse gives this class no public name.
    Commands = argparse._SubParsersAction[Parser]


def add_fp16(commands: Commands) -> None:
    """Add ``fp16`` to the commands of ``fine-edge graph``."""
    parser = commands.add_parser("fp16", help="what FP16 would lose on real pictures, and how to keep it")
    parser.add_argument(
        "target", metavar=ONNX_TARGET, help="a model of the zoo, or an FP32 file with its contract if it has one"
    )
    add_fine(parser)
    add_artifacts(parser)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="pictures, or folders of them")
    add_input_size(parser)
    parser.add_argument("--keep-fp32", type=Path, metavar="FILE", help="nodes that stay FP32 anyway, one a line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the FP16 file, if it keeps its detections")
    parser.add_argument(
        "--keep-list", type=Path, metavar="FILE", help="write the nodes that export --keep-fp32 must be given"
    )
    parser.add_argument(
        "--layer-precisions",
        nargs="?",
        # Bare, it prints: the arguments can be put into a command line by the shell.
        const="-",
        metavar="FILE",
        help="write trtexec's arguments for an engine built with --fp16 from the FP32 file (default: print them)",
    )
    add_json(parser)
    add_explain(parser)
    parser.set_defaults(run=_fp16)


def _fp16(arguments: argparse.Namespace) -> int:
    """Study FP16 on pictures; return 1 when the proposed conversion does not keep the detections."""
    size = InputSize.parse(arguments.input_size, arguments.batch)
    path = Target.parse(arguments.target, arguments.fine).onnx_path(arguments.artifacts)
    # Before the study, which takes minutes.
    if arguments.out:
        check_target(path, arguments.out)
    keep = read_keep_list(arguments.keep_fp32) if arguments.keep_fp32 else ()
    images = Pictures(arguments.images).readable()
    found = study(read_network(path, size), images, keep)
    deliver(arguments, found.to_json(), [])
    if arguments.json != STDOUT:
        _print(found, explain=arguments.explain)
    _write(found, arguments)
    # None is no failure: of outputs that nobody can read nothing is proved.
    return 1 if found.ok is False else 0


def _print(found: Study, *, explain: bool) -> None:
    if found.hazards:
        hazard_table(found).print(console.out, explain=explain)
    else:
        console.out.print(f"{found.network.path.name}: no open FP16 hazard", highlight=False)
    if found.rows:
        budget_table(found.rows).print(console.out)
    # How FP16 is emulated is the same for every file: said by --explain.
    for note in (note for note in found.notes() if explain or note != EMULATION):
        console.out.print(note, style="dim", highlight=False, markup=False)
    console.print_lines(verdict(found))


def hazard_table(found: Study) -> Table:
    """Return one row per open hazard, the worst first."""
    columns = [Column("Tensor", False), Column("Node", False), Column("Max abs"), Column("Keep FP32", False)]
    table = Table(f"{found.network.path.name}: FP16 hazards", [*columns, Column("Reason", False, below=True)])
    for hazard in found.hazards:
        keep = "yes" if hazard.keep_fp32 else "no"
        table.add(hazard.tensor, hazard.node, f"{hazard.max_abs:.4g}", keep, hazard.reason)
    if found.proposed:
        number = len(found.proposed)
        table.notes.append(f"Proposed to stay FP32 ({number}): {', '.join(found.proposed)}.")
        table.brief = [f"Proposed to stay FP32: {number} nodes; --keep-list FILE writes them."]
    return table


def budget_table(rows: Sequence[BudgetRow]) -> Table:
    """Return one row per module, then the whole graph."""
    # A class for each pixel has no boxes or scores that could move.
    of_pixels = any(row.drift.of_pixels for row in rows if row.drift)
    moved = ["box median (px)", "box p90 (px)", "box max (px)", "score median", "score p90", "score max"]
    titles = [*([] if of_pixels else moved), "flipped"]
    table = Table(
        "Drift of what is found against FP32, one module in FP16 at a time",
        [Column("in FP16", False), Column("nodes"), *map(Column, titles)],
    )
    for row in rows:
        # A module that cannot be converted keeps its row: that is a finding, too.
        if row.drift is None:
            table.add(row.module, row.nodes, *[None] * len(titles))
            table.notes.append(f"{row.module} cannot be converted: {row.refused}.")
            continue
        boxes = [f"{value:.3f}" for value in row.drift.box_px] if row.drift.box_px else [None] * 3
        scores = [f"{value:.4f}" for value in row.drift.score] if row.drift.score else [None] * 3
        drifts = () if of_pixels else (*boxes, *scores)
        table.add(row.module, row.nodes, *drifts, f"{row.drift.flipped_share:.2%}")
    return table


def verdict(found: Study) -> str:
    """Say in one line whether the proposed conversion keeps what is found."""
    limit = TOLERANCES["fp16"]
    limits = f"flipped {limit.flipped:.0%}, p90 of boxes {limit.box_px:g} px, p90 of scores {limit.score:g}"
    if found.ok is None:
        return "parity: not proved, the outputs cannot be read"
    if found.network.form == "classes":
        limits = f"{limit.pixels:.0%} of the pixels may change class"
    return f"parity of '{found.rows[-1].module}': {'ok' if found.ok else 'FAILS'} (limits: {limits})"


def _write(found: Study, arguments: argparse.Namespace) -> None:
    if arguments.keep_list:
        write_keep_list(arguments.keep_list, found.beyond_exporter, found.network.path.name)
        console.remark(f"{len(found.beyond_exporter)} nodes -> {arguments.keep_list}")
    if arguments.layer_precisions:
        _write_layer_precisions(found, arguments.layer_precisions, as_json=arguments.json == STDOUT)
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
        # soft_wrap: a line break in the middle of an argument would end it.
        console.out.print(text or "no layer needs FP32", highlight=False, markup=False, soft_wrap=True, end="")


def _table(path: Path, findings: list[Finding]) -> Table:
    """Return one row per kind of finding, with the first of its nodes; each hint stands below once."""
    columns = [Column(title, numeric=False) for title in ("Rule", "Severity", "Node")]
    columns.append(Column("Message", numeric=False, below=True))
    table = Table(f"{path.name}: TensorRT 10.7 checks", columns)
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        nodes.setdefault((finding.rule, finding.severity, finding.message), []).append(finding.node)
    for (rule, severity, message), names in nodes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        table.add(rule, severity, f"{names[0]}{more}", message)
    # A rule can give different hints for different nodes; each stands there once.
    hints = dict.fromkeys((finding.rule, finding.hint) for finding in findings)
    table.notes = [f"{rule}: {hint}" for rule, hint in hints]
    return table


def _summary(findings: list[Finding]) -> str:
    if not findings:
        return f"clean: {len(RULES)} rules ran and found nothing"
    counts = Counter(finding.severity for finding in findings)
    return f"{len(RULES)} rules ran: {counts['error']} errors, {counts['warning']} warnings, {counts['info']} remarks"


def _check(arguments: argparse.Namespace) -> int:
    target = Target.parse(arguments.target, arguments.fine)
    refuse_options_of_models(target, arguments, "precision")
    path = target.onnx_path(arguments.artifacts, precision=arguments.precision or "fp32")
    findings = check(read_model(path, weights=False), path)
    deliver(arguments, [finding.to_json() for finding in findings], [_table(path, findings)] if findings else [])
    if arguments.json != STDOUT:
        console.out.print(_summary(findings), highlight=False)
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def main(argv: list[str]) -> int:
    """Run ``check`` or ``fp16``; return 1 when a finding is an error, or FP16 loses detections."""
    parser = Parser(
        prog="fine-edge graph",
        description="Find without a GPU what TensorRT 10.7 refuses in an ONNX file, and what FP16 loses.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("check", help="run all rules on an ONNX file")
    checker.add_argument("target", metavar=ONNX_TARGET, help="a model of the zoo, exported if needed, or an ONNX file")
    checker.add_argument("--precision", choices=("fp32", "fp16"), help="of a model (default: fp32)")
    add_fine(checker)
    add_artifacts(checker)
    add_json(checker)
    checker.set_defaults(run=_check)
    add_fp16(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))
