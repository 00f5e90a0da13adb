"""What a command runs on pictures: an exported file or an engine, opened, with the contract that explains it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge.contract import Contract, bound_contract
from fine_edge.errors import ConfigError
from fine_edge.runners.base import Runner

if TYPE_CHECKING:
    from fine_edge.runners.ort import OrtRunner


@dataclass(frozen=True)
class Subject:
    """A runner and what it runs.

    Attributes:
        contract: what its outputs mean.
        precision: how it computes.
        onnx_sha256: of the ONNX file, which an engine was built from.
        artifact_sha256: of the file that is run: the ONNX file, or the engine.
    """

    runner: Runner
    contract: Contract
    precision: str
    onnx_sha256: str
    artifact_sha256: str


def add_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``--model`` with what it is exported from, ``--onnx`` or ``--engine``."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--model", help="a model of the zoo, exported if needed")
    source.add_argument("--onnx", type=Path, metavar="FILE", help="an exported ONNX file, its contract beside it")
    source.add_argument(
        "--engine", type=Path, metavar="FILE", help="a TensorRT engine of this machine, its manifest beside it"
    )
    parser.add_argument("--weights", type=Path, help="checkpoint for --model (default: random weights)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="for --model")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="for --model")
    parser.add_argument(
        "--rounded",
        action="store_true",
        help="of an FP16 ONNX file: round after every operator, as a device does; ONNX Runtime alone computes it in"
        " FP32 on x86 (slow)",
    )
    parser.add_argument("--artifacts", type=Path, default=Path("engines"), help="where --model is exported to")


def _onnx_path(args: argparse.Namespace) -> Path:
    if args.onnx:
        return Path(args.onnx)
    from fine_edge.export.artifacts import ensure_exported
    from fine_edge.export.request import ExportRequest, parse_size

    height, width = parse_size(args.input_size)
    request = ExportRequest(args.model, args.weights, args.precision, height=height, width=width)
    return ensure_exported(request, args.artifacts)


def open_subject(args: argparse.Namespace) -> Subject:
    """What the arguments of :func:`add_arguments` name.

    Raises:
        FineEdgeError: when it is missing, broken, stale or foreign.
    """
    if args.engine:
        if args.rounded:
            raise ConfigError("an engine rounds as it was built to", where="--rounded", mend="leave it out")
        from fine_edge.engine.plan_file import contract_of
        from fine_edge.runners.trt import TrtRunner

        contract = contract_of(args.engine)
        engine = TrtRunner(args.engine)
        manifest = engine.manifest
        return Subject(engine, contract, manifest.precision, manifest.onnx_sha256, manifest.engine_sha256)
    onnx_path = _onnx_path(args)
    contract, artifact = bound_contract(onnx_path)
    runner = _onnx_runner(onnx_path, artifact.precision, rounded=args.rounded)
    runner.require(contract)
    return Subject(runner, contract, artifact.precision, artifact.sha256, artifact.sha256)


def _onnx_runner(path: Path, precision: str, *, rounded: bool) -> OrtRunner:
    if not rounded:
        from fine_edge.runners.ort import OrtRunner

        return OrtRunner(path)
    if precision == "fp32":
        raise ConfigError("an FP32 file has nothing to round", where="--rounded", mend="use --precision fp16")
    from fine_edge.runners.rounding import RoundingRunner

    return RoundingRunner(path)
