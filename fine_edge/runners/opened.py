"""Opening of an exported file or an engine: a runner, with the contract that explains its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fine_edge.contract import Contract, bound_contract
from fine_edge.engine.manifest import contract_of
from fine_edge.errors import ConfigError
from fine_edge.runners.base import Runner
from fine_edge.runners.ort import OrtRunner, RoundingRunner
from fine_edge.runners.trt import TrtRunner


@dataclass(frozen=True)
class Opened:
    """A runner and the artifact that it runs.

    Attributes:
        runner: the runner.
        contract: the contract of the artifact.
        precision: the precision it computes in.
        onnx_sha256: hash of the ONNX file; for an engine, of the file that it was built from.
        artifact_sha256: hash of the file that is run, the ONNX file or the engine.
    """

    runner: Runner
    contract: Contract
    precision: str
    onnx_sha256: str
    artifact_sha256: str


def open_engine(path: Path) -> Opened:
    """Open an engine that was built on this machine.

    Raises:
        FineEdgeError: when the engine is missing or broken, or was built from another file or for another machine.
    """
    contract = contract_of(path)
    runner = TrtRunner(path)
    manifest = runner.manifest
    return Opened(runner, contract, manifest.precision, manifest.onnx_sha256, manifest.engine_sha256)


def open_onnx(path: Path, *, rounded: bool, threads: int | None = None) -> Opened:
    """Open an exported ONNX file on the CPU.

    Args:
        path: the file, with its contract beside it.
        rounded: whether to round after every operator of an FP16 or INT8 file, as a device does.
        threads: of each inference; ``None`` for ONNX Runtime's own choice.

    Raises:
        ConfigError: when an FP32 file shall be rounded.
        ArtifactError: when file and contract do not belong together.
    """
    contract, artifact = bound_contract(path)  # checked before the file is loaded
    if rounded and artifact.precision == "fp32":
        raise ConfigError("an FP32 file has nothing to round", where="--rounded", hint="use --precision fp16")
    runner = RoundingRunner(path, threads) if rounded else OrtRunner(path, threads)
    runner.require(contract)
    return Opened(runner, contract, artifact.precision, artifact.sha256, artifact.sha256)
