"""One export: load, lower, trace, check, convert, and write all files together.

The graph is traced from the lowered detector (:meth:`fine_edge.zoo.family.Family.lowered`). The golden outputs come
from the library's own model, so that a comparison with them also checks the lowering.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from fine_edge import __version__, console, machine
from fine_edge.contract import TENSORRT, Artifact, Contract, Precision, TensorSpec, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export.frame import FRAME, take_frames
from fine_edge.export.plugin import define_plugin, use_plugin
from fine_edge.export.request import ExportRequest, multiples_above
from fine_edge.export.trace import trace
from fine_edge.feed import Feed, as_frame, noise
from fine_edge.files import output_errors, sha256_of, written_together
from fine_edge.graph.checks import check_view
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.identity import identity_of
from fine_edge.graph.open_batch import THREE, TWO, open_batch
from fine_edge.graph.view import GraphView
from fine_edge.images import sample_photographs
from fine_edge.preprocess import InGraph, Preprocessing
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.load import LoadedDetector, load

# A protobuf file holds 2 GiB; the margin is for the graph and for constants that lowering or FP16 adds.
_MOST_ONNX_BYTES = 2**31 - 2**26


def _golden(detector: LoadedDetector, request: ExportRequest, preprocessing: Preprocessing) -> bytes:
    """Return the golden file: a batch of photographs and one of noise with the library's own outputs."""
    photographs = sample_photographs()
    feed = Feed(request.frame or request.input_hw, preprocessing, exact=True)
    pictures = [photographs[i % len(photographs)].pixels for i in range(request.batch)]
    if request.frame:
        pictures = [as_frame(pixels, request.frame) for pixels in pictures]
    batch = np.concatenate([feed(pixels)[0] for pixels in pictures])
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, inputs in (("photographs", batch), ("noise", noise(batch.shape, batch.dtype, request.seed))):
        arrays[f"{name}/images"] = inputs
        outputs, margin = detector.family.reference_on(detector.model, inputs, preprocessing, raw=request.raw)
        arrays |= {f"{name}/{output}": value for output, value in outputs.items()}
        arrays[f"{name}/selection_margin"] = np.array(margin)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub lists only its own keywords
    return buffer.getvalue()


def _traced(detector: LoadedDetector, request: ExportRequest, form: GraphForm, names: list[str]) -> onnx.ModelProto:
    """Trace the lowered detector, with what ``request`` puts before it."""
    lowered = detector.family.lowered(detector.model, form)
    if request.plugin is not None:
        use_plugin(lowered, request.model)
    example = torch.zeros(form.batch, 3, form.height, form.width)
    model: onnx.ModelProto = trace(lowered, example, ["images"], names)
    if request.plugin is not None:
        define_plugin(model)
    if request.frame:
        model = take_frames(model, _preprocessing(detector, request), request.frame)
    return model


def _graph(detector: LoadedDetector, request: ExportRequest, form: GraphForm, names: list[str]) -> GraphView:
    """Return the graph that was asked for; refuse one that breaks a rule."""
    if request.batches is None:
        return _checked(_traced(detector, request, form, names), request)
    two, three = (_traced(detector, request, replace(form, batch=batch), names) for batch in (TWO, THREE))
    return _checked(open_batch(two, three, request.batch), request)


def _preprocessing(detector: LoadedDetector, request: ExportRequest) -> Preprocessing:
    """Return the preprocessing, and where it stands."""
    if request.frame is None:
        return detector.preprocessing
    return replace(detector.preprocessing, in_graph=InGraph(request.color, *request.input_hw))


def _checked(model: onnx.ModelProto, request: ExportRequest) -> GraphView:
    """Return a view of a graph; refuse one that breaks a rule."""
    view = GraphView(model)
    errors = [finding for finding in check_view(view) if finding.severity == "error"]
    if errors:
        raise ArtifactError(f"the graph breaks rule {errors[0].rule}: {errors[0].message}", where=request.model)
    return view


def _in_frame(spec: TensorSpec) -> TensorSpec:
    """Say of boxes that they are in pixels of the frame."""
    return replace(spec, meaning=spec.meaning.replace("pixels of the input", "pixels of the frame"))


def _made_by(detector: LoadedDetector, request: ExportRequest) -> dict[str, Any]:
    libraries = (*detector.family.libraries, "onnx", "onnxscript", "onnxruntime")
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
    """Return the artifacts of an earlier export of the same request in another precision, which stay valid."""
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
    if detector.trained_hw is None:
        return
    height, width = multiples_above(*detector.trained_hw)
    if (height, width) != request.input_hw:
        size = f"{request.height}x{request.width}"
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
        WeightsError: when the checkpoint does not fit the model.
        ConfigError: when the model cannot be exported as requested.
        OutputError: when the files cannot be written.
    """
    detector = load(find(request.model), request.weights, request.seed)
    if detector.report:
        console.remark(str(detector.report))
    _warn_of_other_size(detector, request)
    _require_one_file(detector.model, request)
    family = detector.family
    form = GraphForm(request.batch, request.height, request.width, request.raw, request.nms, request.sampling)
    outputs = family.outputs(detector.model, form)
    with output_errors(folder):  # now, not after a minute of tracing
        folder.mkdir(parents=True, exist_ok=True)
    view = _graph(detector, request, form, [spec.name for spec in outputs])
    preprocessing = _preprocessing(detector, request)
    image = TensorSpec("images", "float32", (request.batch, 3, *request.input_hw), "RGB as preprocessing says")
    if request.frame:
        image = TensorSpec(FRAME, "uint8", (request.batch, *request.frame, 3), f"{request.color}, levels of 0 to 255")
        outputs = tuple(_in_frame(spec) for spec in outputs)
    made_by = _made_by(detector, request)
    stem = request.stem()
    graphs: dict[Precision, onnx.ModelProto] = {"fp32": view.model}
    if request.precision == "fp16":
        graphs["fp16"] = to_fp16(view, keep_fp32={*kept_by_exporter(view.model), *request.keep_fp32})

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
            inputs=(image,),
            outputs=outputs,
            preprocessing=preprocessing,
            postprocessed=not request.raw,
            batches=request.batches,
            labels=detector.labels,
            opset=view.opset,
            cost=_cost_json(family.count(detector.model, request.height, request.width)),
            golden={"file": golden.name, "sha256": sha256_of(golden)},
            made_by=made_by,
            task=detector.entry.detector.task,
        )
        (partial / contract_name).write_text(contract.to_text(), encoding="utf-8")
    return folder / request.onnx_name()


def ensure_plain(request: ExportRequest, folder: Path) -> Path:
    """Export the unchanged model with its library's own defaults to ``MODEL.plain.onnx``, and return the path."""
    path = folder / f"{request.model}.plain.onnx"
    detector = load(find(request.model), request.weights, request.seed)
    example = torch.zeros(request.batch, 3, *request.input_hw)
    with written_together(folder, path.name) as partial:
        detector.family.plain(detector.model, example, partial / path.name)
    return path
