"""``fine-edge deploy``: what Triton, DeepStream, Isaac ROS or a C++ program takes, made of an artifact."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_artifacts, add_fine, add_json, deliver
from fine_edge.cli.target import ANY_TARGET, Target, refuse_options_of_models
from fine_edge.deploy import cpp, deepstream, isaac_ros, triton
from fine_edge.deploy.deployable import Deployable, read_deployable
from fine_edge.deploy.folder import Deployment, write
from fine_edge.errors import ConfigError
from fine_edge.table import Column, Table
from fine_edge.text import is_plain_name, printable

# At most five digits: more is no number of pixels, and int would take thousands of them.
_CAMERA = re.compile(r"(\d{1,5})x(\d{1,5})")


def _triton(source: Deployable, name: str, given: argparse.Namespace) -> Deployment:
    return triton.deploy(source, name, device=given.device)


def _deepstream(source: Deployable, name: str, given: argparse.Namespace) -> Deployment:
    return deepstream.deploy(source, name, parser=given.parser, threshold=given.threshold)


def _isaac_ros(source: Deployable, name: str, given: argparse.Namespace) -> Deployment:
    return isaac_ros.deploy(source, name, camera_wh=given.camera, threshold=given.threshold)


def _cpp(source: Deployable, name: str, _: argparse.Namespace) -> Deployment:
    return cpp.deploy(source, name)


# Name of each target: what it is for, which options are its own, and what makes its files.
_TARGETS: dict[str, tuple[str, frozenset[str], Callable[[Deployable, str, argparse.Namespace], Deployment]]] = {
    "triton": ("Triton Inference Server", frozenset({"device"}), _triton),
    "deepstream": ("DeepStream's nvinfer", frozenset({"parser", "threshold"}), _deepstream),
    "isaac-ros": ("Isaac ROS's RT-DETR nodes", frozenset({"camera", "threshold"}), _isaac_ros),
    "cpp": ("examples/cpp/detect.cpp", frozenset(), _cpp),
}

# Set after parsing: with defaults of argparse an option of another target could not be told from one that was left out.
_OWN = {"device": "gpu", "parser": deepstream.PARSER, "threshold": 0.5, "camera": None}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="fine-edge deploy",
        description="Write what a server or a program takes, made of an exported file or an engine: the model, its"
        " configuration, class names and a README that says how to run it. A folder that this command wrote is"
        " replaced, any other is left alone.",
    )
    parser.add_argument("target", choices=list(_TARGETS), help="; ".join(f"{k}: {v[0]}" for k, v in _TARGETS.items()))
    parser.add_argument(
        "source",
        metavar=ANY_TARGET,
        help="a model of the zoo, exported if needed; or a file with its contract or manifest beside it",
    )
    add_fine(parser)
    parser.add_argument("--weights", type=Path, help="checkpoint for a model (default: random weights)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), help="of a model (default: fp32)")
    add_artifacts(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets a folder NAME (default: deployments/TARGET)")
    parser.add_argument("--name", help="of the folder and the model (default: the model's own)")
    parser.add_argument("--device", choices=("gpu", "cpu"), help="triton: where ONNX Runtime computes (default: gpu)")
    parser.add_argument(
        "--parser", metavar="LIB.so", help=f"deepstream: the parser's library (default: {deepstream.PARSER})"
    )
    parser.add_argument("--camera", metavar="WxH", help="isaac-ros: size of the camera's pictures, as 1920x1080")
    parser.add_argument(
        "--threshold", type=float, help="deepstream, isaac-ros: lowest score of a detection (default: 0.5)"
    )
    add_json(parser)
    return parser


def _settle(given: argparse.Namespace) -> None:
    """Refuse options of another target, give the others their defaults, and check their values.

    Raises:
        ConfigError: naming the option.
    """
    title, own, _ = _TARGETS[given.target]
    for option, default in _OWN.items():
        if getattr(given, option) is None:
            setattr(given, option, default)
        elif option not in own:
            raise ConfigError(f"is no option of {given.target}", where=f"--{option}", hint=f"leave it out for {title}")
    if given.target == "isaac-ros":
        given.camera = _camera(given.camera)
    if not 0 <= given.threshold <= 1:
        raise ConfigError(f"{given.threshold:g} is not a score", where="--threshold", hint="give a number from 0 to 1")
    if given.name is not None and not is_plain_name(given.name):
        hint = "letters, digits, '.', '_' and '-'"
        raise ConfigError(f"{printable(given.name)[:80]} is no plain name", where="--name", hint=hint)


def _camera(text: str | None) -> tuple[int, int]:
    """Return the width and height of a camera's pictures.

    Raises:
        ConfigError: when none is given, or it is no size.
    """
    if text is None:
        hint = "give the size of its pictures, as --camera 1920x1080: boxes are scaled back to it in the graph"
        raise ConfigError("the camera is not known", where="--camera", hint=hint)
    found = _CAMERA.fullmatch(text)
    if not found:
        raise ConfigError(f"{printable(text)} is no size", where="--camera", hint="write WxH, as 1920x1080")
    return int(found[1]), int(found[2])


def main(argv: list[str]) -> int:
    """Write the files; return the exit code."""
    given = make_parser().parse_args(argv)
    # What is wrong with the options is said before a model is exported.
    _settle(given)
    target = Target.parse(given.source, given.fine)
    refuse_options_of_models(target, given, "weights", "precision")
    if given.device == "cpu" and target.engine:
        raise ConfigError("an engine computes on the GPU", where="--device", hint="leave it out, or name an ONNX file")
    path = target.engine or target.onnx_path(given.artifacts, given.weights, precision=given.precision or "fp32")
    with console.status(f"reading {path.name}"):
        source = read_deployable(path)
        deployment = _TARGETS[given.target][2](source, given.name or source.contract.model, given)
    folder, listing = write(deployment, source, given.out or Path("deployments") / given.target)
    # The settings are for clients, and stand in deploy.json.
    data = {key: value for key, value in listing.items() if key != "settings"}
    deliver(given, {**data, "folder": str(folder)}, [_table(folder, data)])
    return 0


def _table(folder: Path, data: dict[str, Any]) -> Table:
    weights = ", random weights: its results are meaningless" if data["random_weights"] else ""
    title = f"{folder}, for {data['target']}{weights}"
    view = Table(title, [Column("file", False), Column("sha256", False)], notes=list(data["notes"]))
    for file in data["files"]:
        view.add(file["path"], file["sha256"][:12])
    return view
