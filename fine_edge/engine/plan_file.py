"""Reading a plan of unknown origin: it must be whole, what its manifest says, and for this machine.

TensorRT neither checks nor survives foreign plans reliably (a laptop's engine crashed an Orin: ultralytics issue
18730), so no plan is deserialised before its manifest matches.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fine_edge.contract import Contract, contract_path, read_contract
from fine_edge.engine.manifest import Manifest, read_manifest, rebuild
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.files import file_size, sha256_of
from fine_edge.graph.identity import identity_of

LARGEST_PLAN = 2**33
"""A Jetson of 8 GB holds none that is larger."""


def check_bytes(engine: Path, manifest: Manifest, plan: bytes) -> None:
    """Refuse a plan that is not the one its manifest speaks of.

    Raises:
        ArtifactError: when the hashes differ.
    """
    found = hashlib.sha256(plan).hexdigest()
    if found != manifest.engine_sha256:
        raise ArtifactError(
            f"sha256 {found[:12]} of {len(plan)} bytes is not what its manifest lists ({manifest.engine_sha256[:12]})",
            where=engine,
            hint=f"the file was changed or cut: {rebuild(manifest)}",
        )


def check_onnx(engine: Path, manifest: Manifest) -> bool:
    """Refuse an engine when the ONNX file beside it, or its weights, is not the one that it was built from.

    Returns:
        Whether the ONNX lies beside the engine, so that they were compared.

    Raises:
        ArtifactError: when the ONNX lies beside the engine and is not the one that it was built from.
    """
    onnx_path = engine.with_name(manifest.onnx_file)
    if not onnx_path.exists():
        return False
    found = identity_of(onnx_path)
    if found != manifest.onnx_sha256:
        raise ArtifactError(
            f"was built from another {manifest.onnx_file} ({manifest.onnx_sha256[:12]}) than lies beside it"
            f" ({found[:12]}, its weights included)",
            where=engine,
            hint=f"build it again: python -m fine_edge engine build {manifest.onnx_file}",
        )
    return True


def check_platform(engine: Path, manifest: Manifest, here: Platform) -> None:
    """Refuse a plan that this machine must not load.

    Raises:
        BackendError: naming each difference, with the command that builds the engine here.
    """
    if manifest.target != "tensorrt":
        raise BackendError(
            f"was compiled by TensorRT-RTX {manifest.platform.rtx} for SM86 and cannot run in TensorRT",
            where=engine,
            hint=f"build it for this machine: {rebuild(manifest)}",
        )
    differences = manifest.platform.differences(here)
    if differences:
        raise BackendError(
            f"the engine was built by {'; '.join(differences)}", where=engine, hint=f"run {rebuild(manifest)}"
        )


def read_plan(engine: Path) -> bytes:
    """Return the bytes of an engine file.

    Raises:
        ArtifactError: when it is missing or cannot be read.
    """
    if not engine.exists():
        raise ArtifactError("no such engine file", where=engine, hint=rebuild())
    file_size(engine, ArtifactError, limit=LARGEST_PLAN)
    try:
        return engine.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror or error})", where=engine) from error


def verified_plan(engine: Path, here: Platform) -> tuple[Manifest, bytes]:
    """Return the manifest and the bytes of an engine that ``here`` may deserialise.

    Raises:
        ArtifactError: when file and manifest do not belong together.
        BackendError: when the engine is another machine's, or a plugin library is missing or changed.
    """
    plan = read_plan(engine)
    manifest = read_manifest(engine)
    check_platform(engine, manifest, here)
    check_bytes(engine, manifest, plan)
    found = plugin_hashes(manifest.options)
    if found != manifest.plugins_sha256:
        raise BackendError(
            "a plugin library has changed since the build", where=engine, hint=f"make plugins, then {rebuild(manifest)}"
        )
    return manifest, plan


def plugin_hashes(options: BuildOptions) -> tuple[str, ...]:
    """Return the sha256 of each plugin library.

    Raises:
        BackendError: when one is missing.
    """
    for library in options.plugins:
        if not Path(library).is_file():
            raise BackendError("the plugin library is missing", where=library, hint="make plugins")
    return tuple(sha256_of(Path(library)) for library in options.plugins)


def contract_of(engine: Path) -> Contract:
    """Return the contract beside an engine, after checking that it is of the ONNX that the engine was built from.

    Raises:
        ArtifactError: when it is missing, or vouches for another ONNX.
    """
    manifest = read_manifest(engine)
    path = contract_path(engine.with_name(manifest.onnx_file))
    contract = read_contract(path)
    if manifest.onnx_sha256 not in {artifact.sha256 for artifact in contract.artifacts}:
        raise ArtifactError(
            f"the contract does not speak of the ONNX {manifest.onnx_sha256[:12]} that {engine.name} was built from",
            where=path,
            hint=f"copy the contract from where the ONNX was made, or {rebuild(manifest)}",
        )
    size, batches = manifest.options.input_size, manifest.options.batches
    if batches:
        return contract.of_batches(batches)
    return contract.of_batch(size.batch) if contract.batches and size else contract
