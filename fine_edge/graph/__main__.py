"""What TensorRT 10.7 would stumble over in an ONNX file, and what FP16 would lose, found without a GPU."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from fine_edge import console
from fine_edge.command import run
from fine_edge.graph.checks import RULES, check
from fine_edge.graph.finding import Finding
from fine_edge.graph.fp16_command import add_command, run_command
from fine_edge.graph.model_file import read_model
from fine_edge.table import Column, Table


def _table(path: Path, findings: list[Finding]) -> Table:
    """One row per finding; every mend once below, since many nodes share one."""
    columns = [Column(title, numeric=False) for title in ("Rule", "Severity", "Node", "Message")]
    table = Table(f"{path.name}: TensorRT 10.7 checks", columns)
    for finding in findings:
        table.add(finding.rule, finding.severity, finding.node, finding.message)
    mends = dict.fromkeys((finding.rule, finding.mend) for finding in findings)
    table.notes = [f"{rule}: {mend}" for rule, mend in mends]
    return table


def _summary(findings: list[Finding]) -> str:
    if not findings:
        return f"clean: {len(RULES)} rules ran and found nothing"
    counts = Counter(finding.severity for finding in findings)
    return f"{len(RULES)} rules ran: {counts['error']} errors, {counts['warning']} warnings, {counts['info']} remarks"


def _check(arguments: argparse.Namespace) -> int:
    findings = check(read_model(arguments.onnx, weights=False), arguments.onnx)
    if arguments.json:
        console.print_json([finding.to_json() for finding in findings])
    else:
        if findings:
            _table(arguments.onnx, findings).print(console.out)
        console.out.print(_summary(findings), highlight=False)
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def main(argv: list[str]) -> int:
    """Entry point; 1 when a finding is an error, or FP16 loses detections."""
    parser = argparse.ArgumentParser(prog="python -m fine_edge.graph", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("check", help="run all rules on an ONNX file")
    checker.add_argument("onnx", type=Path, help="the ONNX file")
    checker.add_argument("--json", action="store_true", help="findings as a JSON list")
    add_command(commands)
    arguments = parser.parse_args(argv)
    return run_command(arguments) if arguments.command == "fp16" else _check(arguments)


if __name__ == "__main__":
    run(main)
