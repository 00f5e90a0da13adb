"""``fine-edge export``: export a detector to ONNX, with its contract and golden file."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge.cli.arguments import Parser, add_artifacts, add_fine, add_json, add_seed, deliver
from fine_edge.contract import Contract, contract_path, read_contract
from fine_edge.errors import ConfigError
from fine_edge.export.artifacts import ensure_exported, existing
from fine_edge.export.request import PLUGINS, ExportRequest, parse_batches, parse_frame, parse_size
from fine_edge.fp16.keep_list import read_keep_list
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import with_fine


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge export",
        description="Export a detector to ONNX for TensorRT and ONNX Runtime, with everything the device must know.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model of the zoo: python -m fine_edge zoo")
    add_fine(parser)
    parser.add_argument("--weights", type=Path, help="checkpoint (default: seeded random weights)")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="fp16 writes the FP32 file as well"
    )
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="multiple of 32 (default: the detector's own)")
    parser.add_argument(
        "--batch",
        default="1",
        metavar="N|MIN:MAX",
        help="pictures of an inference; a range such as 1:8, or MIN:OPTIMUM:MAX, leaves them open (default: 1)",
    )
    parser.add_argument("--raw", action="store_true", help="dense outputs instead of detections")
    parser.add_argument(
        "--nms",
        choices=("graph", "onnx"),
        default="graph",
        help="overlapping boxes: in ordinary operators, or as NonMaxSuppression (default: graph)",
    )
    parser.add_argument(
        "--sampling",
        choices=("rows", "grid"),
        default="rows",
        help="RT-DETR's decoder: rows of tokens, or GridSample (files MODEL.grid.*; default: rows)",
    )
    parser.add_argument("--plugin", choices=PLUGINS, help="TensorRT plugin in the graph (files MODEL.plugin.*)")
    parser.add_argument(
        "--keep-fp32", type=Path, metavar="FILE", help="nodes that stay FP32, one a line (graph fp16 --keep-list)"
    )
    parser.add_argument(
        "--frame",
        metavar="HxW",
        help="put the preprocessing into the graph: it takes frames of this size, uint8 (1, H, W, 3), and gives"
        " boxes in their pixels (files MODEL.frameHxW.*)",
    )
    parser.add_argument(
        "--colour", choices=("rgb", "bgr"), default="rgb", help="order of a frame's channels (default: rgb)"
    )
    add_seed(parser, "of the random weights")
    add_artifacts(parser, or_out=True)
    add_json(parser)
    return parser


def _keep_list(args: argparse.Namespace) -> tuple[str, ...]:
    if args.keep_fp32 is None:
        return ()
    # An FP32 file has nothing to keep, so the list would have no effect.
    if args.precision != "fp16":
        raise ConfigError("a keep-list is for FP16 files", where=args.keep_fp32, hint="add --precision fp16")
    return read_keep_list(args.keep_fp32)


def _frames(request: ExportRequest) -> str:
    return "" if request.frame is None else f" from frames of {request.frame[0]}x{request.frame[1]}, {request.color}"


def _batch(contract: Contract) -> str:
    return str(contract.batch) if contract.batches is None else f"{contract.batches[0]} to {contract.batches[2]}"


def main(argv: list[str]) -> int:
    """Export, or find the export that is there, and list its files; return the exit code."""
    args = _parser().parse_args(argv)
    height, width = parse_size(args.input_size)
    if args.frame is None and args.colour != "rgb":
        raise ConfigError("pictures become RGB before the network", where="--colour", hint="add --frame HEIGHTxWIDTH")
    batch, batches = parse_batches(args.batch)
    request = ExportRequest(
        with_fine(args.model, args.fine).name,
        args.weights,
        args.precision,
        height,
        width,
        batch,
        raw=args.raw,
        seed=args.seed,
        plugin=args.plugin,
        keep_fp32=_keep_list(args),
        nms=args.nms,
        sampling=args.sampling,
        frame=None if args.frame is None else parse_frame(args.frame),
        color="BGR" if args.colour == "bgr" else "RGB",
        batches=batches,
    )
    # Asked before the export: afterwards the file is there in both cases.
    reused = existing(request, args.artifacts) is not None
    # Whoever exports by this command means to; other commands, which export on the way, never replace trained weights
    # by random ones.
    onnx_path = ensure_exported(request, args.artifacts, replace_trained=True)
    contract = read_contract(contract_path(onnx_path))
    files = {a.file: a.sha256 for a in contract.artifacts} | {contract.golden["file"]: contract.golden["sha256"]}
    weights = contract.made_by["weights"]
    origin = f"random weights (seed {weights['seed']})" if contract.random_weights else f"{weights['source']} weights"
    size = f"{request.height}x{request.width}"
    view = Table(
        f"{contract.model} at {size}{_frames(request)}, batch {_batch(contract)}, opset {contract.opset}, {origin}"
        + (", already there" if reused else ""),
        [Column("file", numeric=False), Column("MiB"), Column("sha256", numeric=False)],
    )
    for file, digest in files.items():
        view.add(args.artifacts / file, f"{(args.artifacts / file).stat().st_size / 2**20:.1f}", digest[:16])
    data = {"onnx": str(onnx_path), "contract": str(contract_path(onnx_path)), "files": files}
    deliver(args, data, [view])
    return 0
