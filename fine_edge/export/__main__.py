"""``python -m fine_edge.export``: a detector to ONNX, with its contract and golden file."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge import command, console
from fine_edge.contract import contract_path, read_contract
from fine_edge.export.artifacts import ensure_exported, existing
from fine_edge.export.request import ExportRequest, parse_size
from fine_edge.table import Column, Table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.export",
        description="Export a detector to ONNX for TensorRT and ONNX Runtime, with everything the device must know.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model of the zoo: python -m fine_edge.zoo")
    parser.add_argument("--weights", type=Path, help="checkpoint (default: seeded random weights)")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="fp16 writes the FP32 file as well"
    )
    parser.add_argument("--input-size", default="640", metavar="SIDE|HxW", help="multiple of 32 (default: 640)")
    parser.add_argument("--batch", type=int, default=1, help="images per inference (default: 1)")
    parser.add_argument("--raw", action="store_true", help="logits and normalised boxes instead of detections")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("engines"), help="folder to write to (default: engines)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    height, width = parse_size(args.input_size)
    request = ExportRequest(
        args.model, args.weights, args.precision, height, width, args.batch, raw=args.raw, seed=args.seed
    )
    reused = existing(request, args.out) is not None
    onnx_path = ensure_exported(request, args.out)
    contract = read_contract(contract_path(onnx_path))
    files = {a.file: a.sha256 for a in contract.artifacts} | {contract.golden["file"]: contract.golden["sha256"]}
    if args.json:
        console.print_json({"onnx": str(onnx_path), "contract": str(contract_path(onnx_path)), "files": files})
        return 0
    weights = contract.made_by["weights"]
    origin = f"random weights (seed {weights['seed']})" if contract.random_weights else f"{weights['source']} weights"
    view = Table(
        f"{contract.model} at {height}x{width}, batch {contract.batch}, opset {contract.opset}, {origin}"
        + (", already there" if reused else ""),
        [Column("file", numeric=False), Column("MiB"), Column("sha256", numeric=False)],
    )
    for file, digest in files.items():
        view.add(args.out / file, f"{(args.out / file).stat().st_size / 2**20:.1f}", digest[:16])
    view.print(console.out)
    return 0


if __name__ == "__main__":
    command.run(main)
