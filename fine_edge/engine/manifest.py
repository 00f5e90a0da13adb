"""The manifest beside an engine: what it was built from, by what and for what.

``MODEL.fp16.engine.json`` binds ``MODEL.fp16.engine`` to the ONNX it came from and to the one platform that may load
it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, FineEdgeError

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What is known of one engine file.

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
        kernels: number of layers of the engine, ``None`` where the engine does not tell.
        fused_attention: how many of them are a whole attention.
        activation_mib: device memory that one execution context needs.
        weights_mib: of the engine, ``None`` where the build's log does not tell.
        build_s: seconds in the builder.
        built_at: UTC, ISO 8601.
        built_by: ``fine_edge``, or ``trtexec`` for an adopted plan.
        versions: of fine_edge and Polygraphy.
    """

    model: str
    onnx_file: str
    onnx_sha256: str
    engine_sha256: str
    options: BuildOptions
    platform: Platform
    plugins_sha256: tuple[str, ...]
    workspace_mib: int | None
    power_mode: str | None
    timing_cache_sha256: str | None
    kernels: int | None
    fused_attention: int | None
    activation_mib: float
    weights_mib: float | None
    build_s: float | None
    built_at: str
    built_by: str
    versions: dict[str, str | None]

    @property
    def key(self) -> str:
        """Hash of all that decides what the builder makes: equal keys, equal engines."""
        return build_key(self.onnx_sha256, self.options, self.platform, self.plugins_sha256)

    @property
    def precision(self) -> str:
        """How the engine computes."""
        return self.options.precision

    @property
    def target(self) -> str:
        """What the engine was compiled for."""
        return self.options.target

    def to_text(self) -> str:
        """The JSON text of the manifest."""
        data = {
            "format": FORMAT,
            **vars(self),
            "options": self.options.to_json(),
            "platform": self.platform.to_json(),
            "plugins_sha256": list(self.plugins_sha256),
        }
        return json.dumps(data | {"manifest_sha256": _digest(data)}, indent=1, sort_keys=True) + "\n"


def _digest(data: dict[str, Any]) -> str:
    """Hash of a manifest's contents, in which a changed word shows."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def build_key(onnx_sha256: str, options: BuildOptions, platform: Platform, plugins_sha256: tuple[str, ...]) -> str:
    """Content key of a build. For RTX only the compiler counts: it works without a device."""
    is_rtx = options.target != "tensorrt"
    platform = Platform(rtx=platform.rtx) if is_rtx else replace(platform, rtx=None)
    parts = [onnx_sha256, options.to_json(), platform.to_json(), list(plugins_sha256)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def manifest_path(engine: Path) -> Path:
    """``MODEL.fp16.engine.json`` of ``MODEL.fp16.engine``."""
    return engine.with_name(f"{engine.name}.json")


def layers_path(engine: Path) -> Path:
    """``MODEL.fp16.engine.layers.json``: what the engine says of its layers."""
    return engine.with_name(f"{engine.name}.layers.json")


def rebuild(manifest: Manifest | None = None) -> str:
    """How to get the engine again."""
    return f"make engine MODEL={manifest.model if manifest else '...'}"


def read_manifest(engine: Path) -> Manifest:
    """Read the manifest of an engine file.

    Raises:
        ArtifactError: when it is missing, broken, of another format, or was edited.
    """
    path = manifest_path(engine)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtifactError(
            "the engine has no manifest, so nothing says what machine it is for",
            where=path,
            mend="build it here (make engine MODEL=...), or python -m fine_edge.engine adopt for a plan of trtexec",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the manifest cannot be read ({error})", where=path, mend=rebuild()) from error
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ArtifactError(f"manifest format {data['format']}, this version reads {FORMAT}")
        if data.pop("manifest_sha256") != _digest(data):
            raise ArtifactError("the manifest was edited or cut: its own hash does not match")
        manifest = _from_json(data)
    except FineEdgeError as error:
        raise ArtifactError(error.what, where=path, mend=rebuild()) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(
            f"the manifest is broken ({type(error).__name__}: {error})", where=path, mend=rebuild()
        ) from error
    return manifest


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _from_json(data: dict[str, Any]) -> Manifest:
    return Manifest(
        model=str(data["model"]),
        onnx_file=str(data["onnx_file"]),
        onnx_sha256=str(data["onnx_sha256"]),
        engine_sha256=str(data["engine_sha256"]),
        options=BuildOptions.from_json(data["options"]),
        platform=Platform.from_json(data["platform"]),
        plugins_sha256=tuple(str(digest) for digest in data["plugins_sha256"]),
        workspace_mib=_whole(data["workspace_mib"]),
        power_mode=_text(data["power_mode"]),
        timing_cache_sha256=_text(data["timing_cache_sha256"]),
        kernels=_whole(data["kernels"]),
        fused_attention=_whole(data["fused_attention"]),
        activation_mib=float(data["activation_mib"]),
        weights_mib=_number(data["weights_mib"]),
        build_s=_number(data["build_s"]),
        built_at=str(data["built_at"]),
        built_by=str(data["built_by"]),
        versions={str(name): _text(version) for name, version in dict(data["versions"]).items()},
    )
