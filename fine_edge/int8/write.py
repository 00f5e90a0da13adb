"""Write the INT8 file of a study with its contract: both or neither."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from fine_edge.contract import Artifact, Contract, artifact_stem, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.files import output_errors, refuse_unwritable, sha256_of, written_together
from fine_edge.graph.emulate import emulated
from fine_edge.graph.identity import identity_of
from fine_edge.int8.study import Int8Study
from fine_edge.runners.ort import OrtRunner

# Inputs of a golden file.
GOLDEN_BATCHES = 2


def int8_path(source: Path, folder: Path) -> Path:
    """Return ``FOLDER/MODEL.int8.onnx`` of ``DIR/MODEL.onnx``."""
    return folder / f"{artifact_stem(source)}.int8.onnx"


def check_folder(source: Path, contract: Contract | None, folder: Path) -> None:
    """Refuse a folder that cannot be written to, or holds another export of the same name, which would be replaced.

    Raises:
        OutputError, ConfigError: names the file.
    """
    refuse_unwritable([int8_path(source, folder)])
    _others(source, contract, int8_path(source, folder))


def write_int8(study: Int8Study, model: onnx.ModelProto, folder: Path) -> Path:
    """Write the INT8 graph of a study, and where the FP32 file has a contract, its own and a golden file.

    Args:
        study: the study.
        model: its chosen graph.
        folder: to write into; beside the FP32 file, the contract then lists both.

    Raises:
        ConfigError: see :func:`check_folder`.
    """
    contract, source = study.network.contract, study.network.path
    target = int8_path(source, folder)
    others = _others(source, contract, target)
    contract_name = contract_path(target).name
    with written_together(folder, target.name, last=contract_name) as partial, output_errors(target):
        onnx.save(model, partial / target.name)
        if contract is None:
            return target
        own = partial / target.with_suffix(".golden.npz").name
        own.write_bytes(_golden(study, model))
        artifact = Artifact(
            target.name,
            "int8",
            identity_of(partial / target.name),
            study.quantization,
            {"file": own.name, "sha256": sha256_of(own)},
        )
        golden = source.parent / Path(contract.golden.get("file", ".")).name
        # The contract in the new folder names the golden file of FP32 too, so that it comes along.
        if golden.is_file() and golden.parent.resolve() != folder.resolve():
            (partial / golden.name).write_bytes(golden.read_bytes())
        text = replace(contract, artifacts=(*others, artifact)).to_text()
        (partial / contract_name).write_text(text, encoding="utf-8")
    return target


def _golden(study: Int8Study, model: onnx.ModelProto) -> bytes:
    """Return the golden file: pictures that ranges hold for, with what the INT8 graph itself finds in them.

    PyTorch's outputs, which an export stores, are of photographs and noise: a graph whose ranges were found on other
    pictures saturates there, and how far INT8 is from FP32 says nothing of an engine of it.
    """
    network = study.network
    runner = OrtRunner(network.path, model=emulated(model))
    arrays: dict[str, NDArray[np.generic]] = {}
    pictures = study.plan.drift_images[: GOLDEN_BATCHES * network.shape[0]]
    for number, (_, feed) in enumerate(network.batches(pictures), 1):
        arrays[f"pictures {number}/images"] = feed
        outputs = runner.run({network.image_input: feed})
        arrays |= {f"pictures {number}/{name}": value for name, value in outputs.items()}
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub lists only its own keywords
    return buffer.getvalue()


def _others(source: Path, contract: Contract | None, target: Path) -> tuple[Artifact, ...]:
    """Return the artifacts that stay in the contract beside the INT8 file."""
    path = contract_path(target)
    if contract is None or not path.exists():
        return ()
    try:
        present = read_contract(path)
    except ArtifactError:
        present = None
    if present is None or present.made_by != contract.made_by:
        raise ConfigError(
            f"holds another export of {artifact_stem(source)}, whose contract would be replaced",
            where=path,
            hint="give another folder: --out FOLDER",
        )
    return tuple(artifact for artifact in present.artifacts if artifact.file != target.name)
