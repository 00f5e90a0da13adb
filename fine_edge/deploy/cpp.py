"""C++: what ``examples/cpp/detect.cpp`` reads, a contract as a flat text file beside the model's file."""

from __future__ import annotations

from pathlib import Path

from fine_edge.deploy.deployable import Deployable, model_file, require_one_picture, rows_of
from fine_edge.deploy.folder import Deployment, heading, settings_of
from fine_edge.errors import ConfigError

# What detect.cpp compares the first line with: it reads this form alone.
FORMAT = 1
# Element types of the classes that detect.cpp has a branch for.
_LABELS = ("int64", "int32")


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
    # Before the types are looked up: it says so when an output is not there.
    rows_of(source)
    if kinds["labels"] not in _LABELS or {kinds["boxes_xyxy"], kinds["scores"]} != {"float32"}:
        hint = "export it again: fine-edge export writes int64 and float32"
        raise ConfigError("gives other types than detect.cpp reads", where=source.path, hint=hint)
    engine = f"{name}.engine"
    files: dict[str, bytes | Path] = {
        f"{name}.txt": _text(source, engine).encode(),
        engine if source.manifest else f"{name}.onnx": model_file(source),
        "README.md": _readme(source, name).encode(),
    }
    notes = () if source.manifest else (f"the engine is built on the board: trtexec --onnx={name}.onnx",)
    return Deployment("cpp", name, files, settings_of(source), notes)


def _text(source: Deployable, engine: str) -> str:
    """Return the contract, a key and its values each line; numbers as Python writes them, class names last."""
    contract, how = source.contract, source.contract.preprocessing
    height, width = contract.input_hw
    kind = next(spec for spec in contract.outputs if spec.name == "labels").dtype
    lines = [
        f"format {FORMAT}",
        f"engine {engine}",
        f"input {contract.inputs[0].name}",
        f"size {width} {height}",
        f"rows {rows_of(source)}",
        f"labels {kind}",
        f"resize {how.resize} {how.align} {'antialias' if how.antialias else 'nearest-four'}",
        # repr gives the shortest text that is read back as the same number.
        f"scale {how.scale!r}",
        f"mean {' '.join(map(repr, how.mean))}",
        f"std {' '.join(map(repr, how.std))}",
        f"pad {'none' if how.pad_value is None else how.pad_value}",
        # One line each, since a name may hold spaces; all behind the key is the name.
        *(f"label {name}" for name in source.labels),
    ]
    return "\n".join(lines) + "\n"


def _readme(source: Deployable, name: str) -> str:
    # The file itself says what is FP16 or INT8 and what is not; otherwise TensorRT would choose by its flags.
    half = "" if source.precision == "fp32" else " --stronglyTyped"
    build = f"    trtexec --onnx={name}.onnx --saveEngine={name}.engine{half}   # on the board, once\n"
    return f"""{heading(source, name, "C++")}
{"" if source.manifest else build}    g++ -O2 -std=c++17 detect.cpp -o detect -lnvinfer -lcudart
    ./detect {name}.txt street.ppm 0.5           # a line of JSON for each object

`detect.cpp` is `examples/cpp/detect.cpp` of fine_edge: TensorRT 10 and nothing else. `{name}.txt` says what it must
know: a key and its values each line. Pictures are binary PPM: `ffmpeg -i street.jpg street.ppm`.
"""
