"""Engine files for the fake TensorRT, with manifests and contracts as the real ones have them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path
from fine_edge.engine.manifest import Manifest, manifest_path
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.preprocess import Preprocessing

SIZE = 8
QUERIES = 4
JETSON = Platform(tensorrt="10.7.0", cuda="12.6", l4t="36.4.0", gpu="Orin", sm=87)
LAYERS = ["/backbone/conv", "/decoder/attention", "/decoder/box"]
MEANING = {"labels": "classes", "boxes_xyxy": "boxes", "scores": "scores"}


def ports(size: int = SIZE, dtype: str = "float32") -> list[dict]:
    """A detector's tensors."""
    return [
        {"name": "images", "is_input": True, "shape": [1, 3, size, size], "dtype": dtype},
        {"name": "labels", "is_input": False, "shape": [1, QUERIES], "dtype": "int64"},
        {"name": "boxes_xyxy", "is_input": False, "shape": [1, QUERIES, 4], "dtype": "float32"},
        {"name": "scores", "is_input": False, "shape": [1, QUERIES], "dtype": dtype},
    ]


def open_ports(batches: tuple[int, int, int], size: int = SIZE) -> list[dict]:
    """The same tensors with an open batch."""
    return [
        port
        | {"shape": [-1, *port["shape"][1:]]}
        | ({"profile": [[batch, *port["shape"][1:]] for batch in batches]} if port["is_input"] else {})
        for port in ports(size)
    ]


def plan_bytes(**changed) -> bytes:
    """A plan of the fake TensorRT."""
    plan = {"ports": ports(), "layers": LAYERS, "activation_mib": 30, "weights_mib": 40}
    return json.dumps(plan | changed).encode()


def write_contract(folder: Path, model: str, onnx_sha256: str, size: int = SIZE, precision: str = "fp16") -> Contract:
    """A contract for a detector that takes and gives FP32, whatever its engine holds."""
    specs = [TensorSpec(p["name"], p["dtype"], tuple(p["shape"]), p["name"]) for p in ports(size)]
    suffix = ".fp16" if precision == "fp16" else ""
    contract = Contract(
        model=model,
        artifacts=(Artifact(f"{model}{suffix}.onnx", precision, onnx_sha256),),
        inputs=tuple(specs[:1]),
        outputs=tuple(specs[1:]),
        preprocessing=Preprocessing(),
        postprocessed=True,
        labels=("thing",),
        opset=17,
        cost={"params": 20_200_000, "flops": 61_640_000_000, "convention": "made up"},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
    )
    folder.mkdir(parents=True, exist_ok=True)
    contract_path(folder / f"{model}{suffix}.onnx").write_text(contract.to_text(), encoding="utf-8")
    return contract


def write_engine(
    folder: Path,
    plan: bytes | None = None,
    *,
    model: str = "tiny",
    onnx_sha256: str = "0" * 64,
    platform: Platform = JETSON,
    options: BuildOptions | None = None,
    **manifest_changed,
) -> Path:
    """An engine with its manifest, no contract."""
    plan = plan_bytes() if plan is None else plan
    options = options or BuildOptions()
    folder.mkdir(parents=True, exist_ok=True)
    engine = folder / f"{model}.{options.precision}.engine"
    engine.write_bytes(plan)
    manifest = Manifest(
        model=model,
        onnx_file=f"{model}.fp16.onnx" if options.precision == "fp16" else f"{model}.onnx",
        onnx_sha256=onnx_sha256,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        options=options,
        platform=platform,
        plugins_sha256=(),
        workspace_mib=None,
        power_mode=None,
        timing_cache_sha256=None,
        kernels=3,
        fused_attention=1,
        activation_mib=30.0,
        weights_mib=39.5,
        build_s=1.0,
        built_at="2026-01-01T00:00:00+00:00",
        built_by="fine_edge",
        versions={},
    )
    manifest_path(engine).write_text(replace(manifest, **manifest_changed).to_text(), encoding="utf-8")
    return engine
