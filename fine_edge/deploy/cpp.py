"""C++: what ``examples/cpp/detect.cpp`` reads, a contract as a flat text file beside the model's file."""

from __future__ import annotations

from pathlib import Path

from fine_edge.deploy.deployable import Deployable, require_one_picture
from fine_edge.deploy.folder import Deployment, heading, settings_of
from fine_edge.errors import ConfigError

FORMAT = 1
_NEEDED = {"boxes_xyxy": "float32", "scores": "float32"}


def deploy(source: Deployable, name: str) -> Deployment:
    """Return the text file, and the engine or the ONNX file that one is built from.

    Args:
        source: an engine, or an ONNX file that trtexec builds an engine from on the board.
        name: of the folder and its files.

    Raises:
        ConfigError: when ``detect.cpp`` cannot do what the artifact asks for.
    """
    require_one_picture(source, "detect.cpp")
    contract = source.contract
    if contract.task not in ("detection", "instance"):
        hint = "deploy triton carries every output"
        raise ConfigError(
            f"gives maps of pixels ({contract.task}), and detect.cpp reads boxes", where=source.path, hint=hint
        )
    kinds = {spec.name: spec.dtype for spec in contract.outputs}
    wrong = [name for name, kind in _NEEDED.items() if kinds.get(name) != kind]
    if (
        source.takes_frames
        or contract.inputs[0].dtype != "float32"
        or kinds.get("labels") not in ("int64", "int32")
        or wrong
    ):
        hint = "export it without --frame, as fine-edge export does by default"
        raise ConfigError("has other inputs or outputs than detect.cpp reads", where=source.path, hint=hint)
    engine = f"{name}.engine"
    files: dict[str, bytes | Path] = {
        f"{name}.txt": _text(source, engine).encode(),
        engine if source.manifest else f"{name}.onnx": source.path,
        "README.md": _readme(source, name).encode(),
    }
    notes = () if source.manifest else (f"the engine is built on the board: trtexec --onnx={name}.onnx",)
    return Deployment("cpp", name, files, settings_of(source), notes)


def _text(source: Deployable, engine: str) -> str:
    """Return the contract, a key and its values each line; numbers as Python writes them, class names last."""
    contract, how = source.contract, source.contract.preprocessing
    height, width = contract.input_hw
    rows = next(spec for spec in contract.outputs if spec.name == "scores").shape[1]
    kind = next(spec for spec in contract.outputs if spec.name == "labels").dtype
    lines = [
        f"format {FORMAT}",
        f"engine {engine}",
        f"input {contract.inputs[0].name}",
        f"size {width} {height}",
        f"rows {rows}",
        f"labels {kind}",
        f"resize {how.resize} {how.align} {'antialias' if how.antialias else 'nearest-four'}",
        f"scale {how.scale!r}",
        f"mean {' '.join(map(repr, how.mean))}",
        f"std {' '.join(map(repr, how.std))}",
        f"pad {'none' if how.pad_value is None else how.pad_value}",
        *(f"label {name}" for name in source.labels),
    ]
    return "\n".join(lines) + "\n"


def _readme(source: Deployable, name: str) -> str:
    half = " --stronglyTyped" if source.precision == "fp16" else ""
    build = f"    trtexec --onnx={name}.onnx --saveEngine={name}.engine{half}   # on the board, once\n"
    return f"""{heading(source, name, "C++")}
{"" if source.manifest else build}    g++ -O2 -std=c++17 detect.cpp -o detect -lnvinfer -lcudart
    ./detect {name}.txt street.ppm 0.5           # a line of JSON for each object

`detect.cpp` is `examples/cpp/detect.cpp` of fine_edge: TensorRT 10 and nothing else. `{name}.txt` says what it must
know: a key and its values each line. Pictures are binary PPM: `ffmpeg -i street.jpg street.ppm`.
"""
