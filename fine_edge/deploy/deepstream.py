"""DeepStream: a graph whose one output the parser of DeepStream-Yolo reads, with nvinfer's and deepstream-app's files.

Sources: DeepStream's guide, "Gst-nvinfer", for the keys and for its preprocessing, ``net-scale-factor * (x - offset)``
with one factor for all channels; the public repository marcoslucianops/DeepStream-Yolo for ``NvDsInferParseYolo``,
which reads rows of x0, y0, x1, y1 in pixels of the network's input, score and class from the first output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fine_edge.contract import TensorSpec
from fine_edge.deploy.deployable import Deployable, require_boxes, rows_of
from fine_edge.deploy.folder import Deployment, heading, label_lines, settings_of
from fine_edge.deploy.rewrite import Rewriting, contract_file
from fine_edge.errors import ConfigError
from fine_edge.preprocess import Preprocessing

PARSER = "nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so"
CONFIG = "config_infer_primary.txt"
APP = "deepstream_app_config.txt"
OUTPUT = "output"
_CONSUMER = "nvinfer with the parser of DeepStream-Yolo"
# nvinfer's network-mode: 0 is FP32, 1 INT8, 2 FP16.
_MODES = {"fp32": 0, "fp16": 2}


def deploy(source: Deployable, name: str, *, parser: str = PARSER, threshold: float = 0.5) -> Deployment:
    """Return the files for nvinfer.

    Args:
        source: an ONNX file of a detector.
        name: of the folder.
        parser: path of the parser's library, as nvinfer finds it.
        threshold: lowest score of a detection.

    Raises:
        ConfigError: when nvinfer or its parser cannot carry what the artifact takes or finds.
    """
    require_boxes(source, _CONSUMER)
    # A key file has no quotes: a line's end begins another key, and a semicolon ends a value.
    if any(character in parser for character in "\n\r;"):
        raise ConfigError("is no path that a configuration can hold", where="--parser", hint="give a plain path")
    file = f"{name}.onnx"
    graph = Rewriting(source, [OUTPUT])
    # What nvinfer cannot do of the normalisation goes into the graph.
    graph.take(source.contract.inputs[0].name, _one_factor(source.contract.preprocessing))
    output = _append_rows(graph, source)
    onnx, contract = graph.finish(source.contract.inputs, (output,), file)
    config = _config(source, graph.preprocessing, file, output, parser, threshold)
    files: dict[str, bytes | Path] = {
        file: onnx,
        contract_file(file): contract.encode(),
        "labels.txt": label_lines(source),
        CONFIG: config.encode(),
        APP: _app(source).encode(),
        "README.md": _readme(source, name, parser).encode(),
    }
    settings = {**settings_of(source), "preprocessing": graph.preprocessing.to_json(), "threshold": threshold}
    return Deployment("deepstream", name, files, settings, _notes(source.contract.preprocessing))


def _one_factor(how: Preprocessing) -> Preprocessing:
    """Return the part of the preprocessing that nvinfer can do: one factor for all channels, an offset for each."""
    first, *others = how.std
    # (x * scale - mean) / std with one std is x * (scale / std) - mean / std, which nvinfer can do as a whole.
    if all(value == first for value in others):
        mean = (how.mean[0] / first, how.mean[1] / first, how.mean[2] / first)
        return replace(how, scale=how.scale / first, mean=mean, std=(1.0, 1.0, 1.0))
    # nvinfer scales and takes the mean off; the graph divides by each channel's std.
    return replace(how, std=(1.0, 1.0, 1.0))


def _append_rows(graph: Rewriting, source: Deployable) -> TensorSpec:
    """Append the concatenation of boxes, scores and classes, and return its description, (B, N, 6)."""
    last = graph.constant([2], dtype=int)
    # In the order in which the parser reads a row, classes as float32 too, which is exact for them: up to 2^24.
    columns = [graph.cast(graph.inner("boxes_xyxy"), "float32")]  # (B, N, 4)
    for name in ("scores", "labels"):
        columns.append(graph.node("Unsqueeze", [graph.cast(graph.inner(name), "float32"), last]))  # (B, N) -> (B, N, 1)
    graph.node("Concat", columns, OUTPUT, axis=2)
    return TensorSpec(
        OUTPUT,
        "float32",
        (source.contract.batch, rows_of(source), 6),
        "x0, y0, x1, y1 in pixels of the input, score, class",
    )


def _notes(how: Preprocessing) -> tuple[str, ...]:
    notes = ["nvinfer resizes by its own filter: pixels differ from this program's, and scores a little with them"]
    if how.resize == "letterbox" and how.pad_value != 0:
        own = "zeros behind the normalisation" if how.pad_value is None else f"grey level {how.pad_value}"
        notes.append(f"nvinfer pads with black, the model was trained with {own}: boxes at the padding may differ")
    return tuple(notes)


def _config(
    source: Deployable, how: Preprocessing, onnx: str, output: TensorSpec, parser: str, threshold: float
) -> str:
    """Return nvinfer's configuration."""
    height, width = source.contract.input_hw
    batch, rows, _ = output.shape
    letterbox = how.resize == "letterbox"
    mode = _MODES[source.precision]
    keys = {
        "gpu-id": 0,
        "onnx-file": onnx,
        # The name under which nvinfer itself saves the engine that it builds, so that the next start finds it.
        "model-engine-file": f"{onnx}_b{batch}_gpu0_{source.precision}.engine",
        "labelfile-path": "labels.txt",
        "batch-size": batch,
        "infer-dims": f"3;{height};{width}",
        "network-mode": mode,
        # A detector, on whole frames (process-mode 1), every one of them (interval 0), in RGB (model-color-format 0).
        "network-type": 0,
        "num-detected-classes": len(source.labels),
        "process-mode": 1,
        "gie-unique-id": 1,
        "interval": 0,
        "model-color-format": 0,
        "net-scale-factor": repr(how.scale),
        # nvinfer computes net-scale-factor * (x - offset), so its offsets are levels of 255.
        "offsets": ";".join(repr(value / how.scale) for value in how.mean),
        "scaling-filter": 1,  # bilinear; without the key NvBufSurfTransform takes the nearest pixel
        "maintain-aspect-ratio": int(letterbox),
        "symmetric-padding": int(letterbox and how.align == "center"),
        # No clustering: the graph suppresses duplicates already. Without the key nvinfer would do it again by groups of
        # boxes.
        "cluster-mode": 4,
        "parse-bbox-func-name": "NvDsInferParseYolo",
        "custom-lib-path": parser,
    }
    # topk: nvinfer must not cut off rows that the graph gives.
    return _ini({"property": keys, "class-attrs-all": {"pre-cluster-threshold": f"{threshold:g}", "topk": rows}})


def _app(source: Deployable) -> str:
    """Return a configuration of deepstream-app: one file in, a window out."""
    sample = "file:///opt/nvidia/deepstream/deepstream/samples/streams/sample_1080p_h264.mp4"
    return _ini(
        {
            "application": {"enable-perf-measurement": 1, "perf-measurement-interval-sec": 5},
            "tiled-display": {"enable": 1, "rows": 1, "columns": 1, "width": 1280, "height": 720},
            # type 3: files and addresses by URI. type 2 of the sink: a window; sync 0 shows frames as fast as they
            # come.
            "source0": {"enable": 1, "type": 3, "uri": sample, "num-sources": 1},
            "sink0": {"enable": 1, "type": 2, "sync": 0},
            "osd": {"enable": 1, "border-width": 3, "text-size": 14, "font": "Serif"},
            "streammux": {
                "live-source": 0,
                "batch-size": source.contract.batch,
                # Microseconds until a batch that is not full goes on: a frame at 25 FPS.
                "batched-push-timeout": 40000,
                "width": 1920,
                "height": 1080,
            },
            "primary-gie": {"enable": 1, "gie-unique-id": 1, "config-file": CONFIG},
        }
    )


def _ini(sections: dict[str, dict[str, object]]) -> str:
    texts = []
    for name, keys in sections.items():
        texts.append(f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()))
    return "\n".join(texts)


def _shapes(source: Deployable) -> str:
    """Return the options of trtexec for an open batch, by lines; nvinfer gives 1 to its batch-size."""
    contract = source.contract
    if contract.batches is None:
        return ""
    # As nvinfer's own profile, so that its engine and trtexec's take the same batches.
    bounds = zip(("min", "opt", "max"), (1, contract.batch, contract.batch), strict=True)
    dims = "x".join(map(str, contract.inputs[0].shape[1:]))
    flags = " ".join(f"--{bound}Shapes={contract.inputs[0].name}:{batch}x{dims}" for bound, batch in bounds)
    return f" \\\n        {flags}"


def _engine_note(source: Deployable, name: str) -> str:
    if source.precision == "fp32":
        return "nvinfer builds an FP32 engine of it. For FP16, hand over the model's FP16 file."
    engine = f"{name}.onnx_b{source.contract.batch}_gpu0_fp16.engine"
    return f"""nvinfer builds with the FP16 flag, which may also compute in FP16 what the file keeps in FP32. This
builds an engine that keeps it, which nvinfer then loads where its TensorRT is trtexec's:

    trtexec --onnx={name}.onnx --stronglyTyped --saveEngine={engine}{_shapes(source)}"""


def _readme(source: Deployable, name: str, parser: str) -> str:
    notes = "".join(f"- {note}\n" for note in _notes(source.contract.preprocessing))
    return f"""{heading(source, name, "DeepStream")}
1. Build the parser, once: clone `marcoslucianops/DeepStream-Yolo`, then
   `CUDA_VER=12.6 make -C nvdsinfer_custom_impl_Yolo` with the board's version of CUDA.
   Copy the library to `{parser}`, seen from this folder.
2. `deepstream-app -c {APP}` in this folder. The first start builds the engine for this
   board, which takes minutes. nvinfer takes an engine that is there without comparing it with the ONNX file: remove
   `*.engine` when the ONNX file is replaced.

`{name}.onnx` gives one output, `{OUTPUT}`: rows of x0, y0, x1, y1 in pixels of the input, score, class. Rows that find
nothing have score 0. The graph suppresses duplicates itself, so `cluster-mode=4` leaves the rows as they are. The
parser drops boxes of less than one pixel of the input.

{_engine_note(source, name)}

What differs from `fine-edge predict`:
{notes}"""
