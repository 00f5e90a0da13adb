"""``fine-edge COMMAND ...``: the program, which loads the one command that was asked for."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NoReturn

from fine_edge import __version__, command
from fine_edge.errors import ConfigError

# Name and purpose of each command, in the order of the work. ``fine_edge/cli/NAME.py`` holds its ``main``.
COMMANDS = {
    "doctor": "one page on this machine: what works, and what to do about the rest",
    "jetson": "the state of a Jetson: clocks, power mode, heat and power, now or from its logs",
    "zoo": "every model with its #Params and FLOPs beside the paper's",
    "train": "train a detector on boxes in COCO's format",
    "study": "variants of a detector, each trained with several seeds, evaluated and compared",
    "export": "a detector to ONNX, with its contract and golden file",
    "graph": "rules on an ONNX file (check); what FP16 would lose on real pictures (fp16)",
    "quantize": "INT8 for an exported detector, judged before a board",
    "parity": "an exported detector against its PyTorch model",
    "engine": "build TensorRT engines, verify them, take over trtexec's, compile without a GPU",
    "predict": "objects or segments in pictures, drawn",
    "stream": "the same on videos, cameras and network streams, live",
    "evaluate": "AP and errors on labelled data; two evaluations compared",
    "analyze": "effective receptive fields (erf) and heatmaps of the fusions (heatmap), as the paper draws them",
    "deploy": "what Triton, DeepStream, Isaac ROS or a C++ program takes, made of an artifact",
    "bench": "measure a suite of models against each other",
    "board": "bench, evaluate, engine and others on a board over ssh, with their results here",
    "layers": "an engine's time, kernels and memory by part of the detector",
    "estimate": "the latency that a model would have on a board that is not here",
    "matrix": "every model through export, rules, parity and NVIDIA's compiler",
    "report": "records as one HTML page, or as Markdown",
}


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {purpose}" for name, purpose in COMMANDS.items())
    return (
        "usage: fine-edge COMMAND ...\n\n"
        "Detectors with and without FINE: from PyTorch to ONNX to TensorRT engines, checked and measured.\n\n"
        f"{lines}\n\n"
        "fine-edge COMMAND --help shows the options of one command; fine-edge --version the version.\n"
    )


def main(argv: list[str]) -> int:
    """Run the command that ``argv`` names, and return its exit code.

    Raises:
        ConfigError: when there is no such command.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        # Without a command nothing was done, which a script must see.
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        sys.stdout.write(f"fine-edge {__version__}\n")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(COMMANDS)}"
        raise ConfigError(f"no command is called {name!r}", where="fine-edge", hint=hint)
    # Loaded by name: most commands need libraries that others do without, and those of torch take seconds.
    return int(importlib.import_module(f"fine_edge.cli.{name}").main(rest))


def run(*first: str) -> NoReturn:
    """Run the program on the process's arguments, behind those given here, and leave the process."""
    command.run(lambda argv: main([*first, *argv]))
