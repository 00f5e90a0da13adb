"""The manifest beside an engine: what it was built from, by what and for what. Plans are read by it alone.

``MODEL.fp16.engine.json`` binds ``MODEL.fp16.engine`` to the ONNX it came from and to the one platform that may load
it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fine_edge.contract import Contract, contract_path, read_contract
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.fields import FileName, Finite, Sha256, Text, Whole, from_data, to_data
from fine_edge.files import contents_checked, file_size, read_document, sha256_of
from fine_edge.graph.identity import identity_of

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """The origin of one engine file: its ONNX, its options, the machine it is for, and its figures.

    Attributes:
        model: name in the zoo, or the stem of a foreign ONNX file.
        onnx_file: name of the ONNX it was built from.
        onnx_sha256: of that file.
        engine_sha256: of the plan.
        options: what was asked of the builder.
        platform: what built it, and must run it.
        plugins_sha256: of the plugin libraries, in the order of the options.
        workspace_mib: the limit that the builder really had.
        power_mode: of the board while kernels were timed and picked; ``None`` where there is none.
        timing_cache_sha256: of the cache after the build, ``None`` without one.
        kernels: number of kernels of one inference, ``None`` where the engine does not say.
        fused_attention: how many of them are a whole attention.
        activation_mib: device memory that one execution context needs.
        weights_mib: of the engine, ``None`` where the build's log does not say.
        build_s: seconds in the builder.
        built_at: UTC, ISO 8601.
        built_by: ``fine_edge``, or ``trtexec`` for an adopted plan.
        versions: of fine_edge and Polygraphy.
    """

    model: FileName
    onnx_file: FileName
    onnx_sha256: Text
    engine_sha256: Sha256
    options: BuildOptions
    platform: Platform
    plugins_sha256: Annotated[tuple[Sha256, ...], Meta(max_length=2**16)]
    workspace_mib: Whole | None
    power_mode: Text | None
    timing_cache_sha256: Text | None
    kernels: Whole | None
    fused_attention: Whole | None
    activation_mib: Finite
    weights_mib: Finite | None
    build_s: Finite | None
    built_at: Text
    built_by: Text
    versions: dict[str, Text | None]

    @property
    def key(self) -> str:
        """Return the hash of all that decides what the builder makes; equal keys mean equal engines."""
        return build_key(self.onnx_sha256, self.options, self.platform, self.plugins_sha256)

    @property
    def precision(self) -> str:
        """Return the precision that the engine was built in."""
        return self.options.precision

    @property
    def target(self) -> str:
        """Return what the engine was compiled for."""
        return self.options.target

    def to_text(self) -> str:
        """Return the JSON text of the manifest."""
        data = {"format": FORMAT, **to_data(self), "options": self.options.to_json()}
        return json.dumps(data | {"manifest_sha256": _digest(data)}, indent=1, sort_keys=True) + "\n"


def _digest(data: dict[str, Any]) -> str:
    """Return the hash of a manifest's contents, by which an edit is found."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def build_key(onnx_sha256: str, options: BuildOptions, platform: Platform, plugins_sha256: tuple[str, ...]) -> str:
    """Return the content key of a build: the hash of all contents that the engine depends on; names do not count.

    The ONNX with every file of its weights; precision, level, streams, workspace, kept layers, input size and batches
    (recipes and keep-lists are read into these); plugin libraries; compiler, GPU and JetPack. For RTX only the compiler
    counts: it works without a device. A timing cache is not part: it makes a build faster, and every build writes it.
    """
    is_rtx = options.target != "tensorrt"
    platform = Platform(rtx=platform.rtx) if is_rtx else replace(platform, rtx=None)
    parts = [onnx_sha256, options.to_json(), to_data(platform), plugins_sha256]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def manifest_path(engine: Path) -> Path:
    """Return ``MODEL.fp16.engine.json`` of ``MODEL.fp16.engine``."""
    return engine.with_name(f"{engine.name}.json")


def layers_path(engine: Path) -> Path:
    """Return ``MODEL.fp16.engine.layers.json``, which holds what the engine says of its layers."""
    return engine.with_name(f"{engine.name}.layers.json")


def rebuild(manifest: Manifest | None = None) -> str:
    """Return the command that builds the engine again."""
    return f"make engine MODEL={manifest.model if manifest else '...'}"


def read_manifest(engine: Path) -> Manifest:
    """Read the manifest of an engine file.

    Raises:
        ArtifactError: when it is missing, broken, of another format, or was edited.
    """
    path = manifest_path(engine)
    if not path.exists():
        raise ArtifactError(
            "the engine has no manifest, so nothing says what machine it is for",
            where=path,
            hint="build it here (make engine MODEL=...), or python -m fine_edge engine adopt for a plan of trtexec",
        )
    data = read_document(path, ArtifactError, title="manifest", format_=FORMAT, hint=rebuild(), non_finite=True)
    with contents_checked(path, ArtifactError, title="manifest", hint=rebuild()):
        if data.pop("manifest_sha256", None) != _digest(data):
            raise ArtifactError("the manifest was edited or cut: its own hash does not match")
        data["options"] = BuildOptions.from_json(data.get("options"))
        return from_data(Manifest, data)


# Reading a plan of unknown origin: it must be whole, what its manifest says, and for this machine.
#
# TensorRT neither checks nor survives foreign plans reliably (a laptop's engine crashed an Orin: ultralytics issue
# 18730), so no plan is deserialised before its manifest matches.

# A Jetson of 8 GB holds none that is larger.
LARGEST_PLAN = 2**33


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
