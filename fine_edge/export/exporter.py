"""One export: load, lower, trace, check, convert, and write all files together.

The graph is traced from a *lowered* detector (:mod:`fine_edge.export.exporter`); the golden
outputs come from the library's model as it is, so that they vouch for the lowering too.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import RTDetrForObjectDetection

from fine_edge import __version__, console, machine
from fine_edge.contract import TENSORRT, Artifact, Contract, Precision, TensorSpec, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export.plugin import define_plugin, use_plugin
from fine_edge.export.request import ExportRequest
from fine_edge.export.trace import trace
from fine_edge.files import output_errors, sha256_of, written_together
from fine_edge.graph.checks import check
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.identity import identity_of
from fine_edge.images import sample_photographs
from fine_edge.lowering.modules import fold_batch_norms, lower_modules
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.zoo.catalog import FamilyName, find
from fine_edge.zoo.count import Cost
from fine_edge.zoo.family import GraphForm, family_of
from fine_edge.zoo.load import LoadedDetector, load
from fine_edge.zoo.rtdetr.family import DetectorGraph
from fine_edge.zoo.rtdetr.lowered import LoweredRTDetr


@torch.no_grad()
def lower(model: nn.Module, family: FamilyName, form: GraphForm) -> nn.Module:
    """The inference form of a detector for one static input shape; the model itself is left as it is.

    Returns:
        A module from images (B, 3, H, W) to the outputs that :meth:`Family.outputs` lists, as a tuple.

    Raises:
        ConfigError: for a configuration that the lowered form does not cover.
    """
    model = copy.deepcopy(model)
    if family == "rtdetr":
        detector = LoweredRTDetr(cast(RTDetrForObjectDetection, model), form.batch, form.height, form.width)
        return DetectorGraph(detector, form).eval()
    fold_batch_norms(model)
    graph = family_of(family).graph(lower_modules(model), form)
    return graph.requires_grad_(False).eval()


# Of a protobuf file, the graph itself and what FP16 or lowering adds left aside.
_MOST_ONNX_BYTES = 2**31 - 2**26


def _golden(detector: LoadedDetector, request: ExportRequest, preprocessing: Preprocessing) -> bytes:
    """Inputs and the outputs of the library's own forward pass: a batch of photographs and one of noise."""
    shape = (request.height, request.width)
    photographs = sample_photographs()
    batch = [
        preprocess(photographs[i % len(photographs)].pixels, *shape, preprocessing)[0] for i in range(request.batch)
    ]
    noise = np.random.default_rng(request.seed).random((request.batch, 3, *shape), dtype=np.float32)
    family = family_of(detector.entry.family)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, images in (("photographs", np.concatenate(batch)), ("noise", noise)):
        arrays[f"{name}/images"] = images
        with torch.inference_mode():
            reference = family.reference(detector.model, torch.from_numpy(images), raw=request.raw)
        for output, value in reference.outputs.items():
            arrays[f"{name}/{output}"] = value.numpy()
        arrays[f"{name}/selection_margin"] = np.array(reference.margin)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub lists only its own keywords
    return buffer.getvalue()


def _graph(detector: LoadedDetector, request: ExportRequest, form: GraphForm, names: list[str]) -> onnx.ModelProto:
    lowered = lower(detector.model, detector.entry.family, form)
    if request.plugin is not None:
        use_plugin(lowered, request.model)
    example = torch.zeros(form.batch, 3, form.height, form.width)
    model: onnx.ModelProto = trace(lowered, example, ["images"], names)
    if request.plugin is not None:
        define_plugin(model)
    errors = [finding for finding in check(model) if finding.severity == "error"]
    if errors:
        raise ArtifactError(f"the graph breaks rule {errors[0].rule}: {errors[0].message}", where=request.model)
    return model


def _made_by(detector: LoadedDetector, request: ExportRequest) -> dict[str, Any]:
    libraries = (*family_of(detector.entry.family).libraries, "onnx", "onnxscript", "onnxruntime")
    return {
        "fine_edge": __version__,
        "tensorrt": TENSORRT,
        "source_sha256": machine.source_sha256(),
        "libraries": {name: machine.version(name) for name in libraries},
        "weights": detector.provenance,
        "options": request.options(),
        "suppresses": detector.entry.detector.suppresses,
    }


def _kept(folder: Path, stem: str, made_by: dict[str, Any], written: set[str]) -> list[Artifact]:
    """Artifacts of an earlier export of the very same thing in another precision, which stay vouched for."""
    try:
        before = read_contract(contract_path(folder / f"{stem}.onnx"))
        same = before.made_by == made_by
        return [
            artifact
            for artifact in before.artifacts
            if same and artifact.file not in written and identity_of(folder / artifact.file) == artifact.sha256
        ]
    except (ArtifactError, OSError):
        return []


def _cost_json(cost: Cost) -> dict[str, Any]:
    return {"params": cost.params, "flops": cost.flops, "convention": cost.convention}


def _warn_of_other_size(detector: LoadedDetector, request: ExportRequest) -> None:
    trained = detector.trained_hw
    if trained is not None and trained != request.input_hw:
        (height, width), size = trained, f"{request.height}x{request.width}"
        console.warn(f"trained at {height}x{width}, exported at {size}: --input-size {height}x{width} is its own")


def _require_one_file(model: torch.nn.Module, request: ExportRequest) -> None:
    """Refuse weights that one ONNX file cannot hold, before minutes of tracing."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size >= _MOST_ONNX_BYTES:
        raise ConfigError(
            f"weights of {size / 2**30:.1f} GiB do not fit into one ONNX file, which holds less than 2 GiB",
            where=request.model,
            hint="train for fewer classes",
        )


def export(request: ExportRequest, folder: Path) -> Path:
    """Export a detector into ``folder``: ONNX, contract and golden file, all or none.

    Returns:
        Path of the ONNX file of the requested precision.

    Raises:
        WeightsError, ConfigError, OutputError: as their names say.
    """
    detector = load(find(request.model), request.weights, request.seed)
    if detector.report:
        console.remark(str(detector.report))
    _warn_of_other_size(detector, request)
    _require_one_file(detector.model, request)
    entry, family = detector.entry, family_of(detector.entry.family)
    form = GraphForm(request.batch, request.height, request.width, request.raw, request.nms)
    outputs = family.outputs(detector.model, form)
    with output_errors(folder):  # now, not after a minute of tracing
        folder.mkdir(parents=True, exist_ok=True)
    model = _graph(detector, request, form, [spec.name for spec in outputs])
    preprocessing = detector.preprocessing
    made_by = _made_by(detector, request)
    stem = request.stem()
    graphs: dict[Precision, onnx.ModelProto] = {"fp32": model}
    if request.precision == "fp16":
        graphs["fp16"] = to_fp16(model, keep_fp32={*kept_by_exporter(model), *request.keep_fp32})

    contract_name = contract_path(Path(f"{stem}.onnx")).name
    with written_together(folder, stem, last=contract_name) as partial:
        artifacts = []
        for precision, graph in graphs.items():
            file = partial / replace(request, precision=precision).onnx_name()
            onnx.save(graph, file)
            artifacts.append(Artifact(file.name, precision, identity_of(file)))
        golden = partial / f"{stem}.golden.npz"
        golden.write_bytes(_golden(detector, request, preprocessing))
        contract = Contract(
            model=request.model,
            artifacts=(*artifacts, *_kept(folder, stem, made_by, {artifact.file for artifact in artifacts})),
            inputs=(
                TensorSpec(
                    "images", "float32", (request.batch, 3, request.height, request.width), "RGB as preprocessing says"
                ),
            ),
            outputs=outputs,
            preprocessing=preprocessing,
            postprocessed=not request.raw,
            labels=detector.labels,
            opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
            cost=_cost_json(family.count(detector.model, request.height, request.width)),
            golden={"file": golden.name, "sha256": sha256_of(golden)},
            made_by=made_by,
            task=entry.detector.task,
        )
        (partial / contract_name).write_text(contract.to_text(), encoding="utf-8")
    return folder / request.onnx_name()


def ensure_plain(request: ExportRequest, folder: Path) -> Path:
    """Export the unchanged model with its library's own defaults to ``MODEL.plain.onnx``."""
    path = folder / f"{request.model}.plain.onnx"
    entry = find(request.model)
    model = load(entry, request.weights, request.seed).model
    example = torch.zeros(request.batch, 3, *request.input_hw)
    with written_together(folder, path.name) as partial:
        family_of(entry.family).plain(model, example, partial / path.name)
    return path
