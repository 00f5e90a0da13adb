"""What a person may name on a command line: a model of the zoo, an ONNX file, or a TensorRT engine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.cli.arguments import add_artifacts, add_fine
from fine_edge.errors import ConfigError
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest, parse_size
from fine_edge.runners.opened import Opened, open_engine, open_onnx
from fine_edge.zoo.catalog import is_model, with_fine

ONNX_TARGET = "MODEL|FILE.onnx"
ANY_TARGET = "MODEL|FILE.onnx|FILE.engine"


@dataclass(frozen=True)
class Target:
    """What was named; one of the three is set.

    Attributes:
        model: name in the zoo.
        onnx: file.
        engine: file.
    """

    model: str | None = None
    onnx: Path | None = None
    engine: Path | None = None

    @classmethod
    def parse(cls, text: str, fine: str | None = None) -> Target:
        """Tell by the ending, then by the zoo, what a person means.

        Args:
            text: what was named.
            fine: options of the FINE of a model, as ``--fine`` takes them.

        Raises:
            UnknownModelError: when it is neither a file nor a model.
            ConfigError: when it does not take these options.
        """
        path = Path(text)
        is_engine = path.suffix == ".engine"
        # What has a slash or is there as a file is a file, whatever it ends in; a name of the zoo wins over a file of
        # that name.
        if not is_engine and path.suffix != ".onnx" and (is_model(text) or not ("/" in text or path.is_file())):
            return cls(model=with_fine(text, fine).name)
        refuse_fine(fine, path)
        return cls(engine=path) if is_engine else cls(onnx=path)

    def onnx_path(self, artifacts: Path, weights: Path | None = None, **options: Any) -> Path:
        """Return the ONNX file; that of a model is exported into ``artifacts`` unless it is there.

        Args:
            artifacts: folder of exported files.
            weights: checkpoint of a model.
            options: of :class:`fine_edge.export.request.ExportRequest`, for a model.

        Raises:
            ConfigError: for an engine, which is no graph any more.
            ArtifactError, WeightsError: when a model cannot be exported.
        """
        if self.engine:
            raise ConfigError("an engine holds no graph", where=self.engine, hint="name its ONNX file, or its model")
        if self.onnx:
            return self.onnx
        assert self.model is not None
        # Reused where it is there by the content of all that it is made from.
        return ensure_exported(ExportRequest(self.model, weights, **options), artifacts)


def refuse_fine(fine: str | None, path: Path) -> None:
    """Refuse ``--fine`` beside a file, whose FINE is what it is.

    Raises:
        ConfigError: when it was given.
    """
    if fine is not None:
        raise ConfigError(f"{path.name} is a file and has its FINE", where="--fine", hint="name a model of the zoo")


def refuse_options_of_models(target: Target, given: argparse.Namespace, *options: str) -> None:
    """Refuse options that say how a model is exported beside a file, which would not heed them.

    Args:
        target: what was named.
        given: options of a command.
        options: names of those that are for models alone, by default absent.

    Raises:
        ConfigError: naming the option.
    """
    path = target.onnx or target.engine
    if path:
        what = f"is for a model, and {path.name} is a file that has its own"
        refuse_unheeded(given, what, *options, hint="leave it out, or name a model of the zoo")


def refuse_unheeded(given: argparse.Namespace, why: str, *options: str, hint: str = "leave it out") -> None:
    """Refuse options that a command would not heed.

    Args:
        given: options of a command.
        why: they have no effect.
        options: names, by default absent.
        hint: what to do.

    Raises:
        ConfigError: naming the first that was given.
    """
    for option in options:
        # By truth: these options are absent as None, False or 0, and a seed of 0 is the default.
        if getattr(given, option):
            raise ConfigError(why, where=f"--{option.replace('_', '-')}", hint=hint)


def add_target_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add what commands on pictures run: ``--model``, ``--onnx`` or ``--engine``, and what a model is exported from."""
    source = parser.add_mutually_exclusive_group(required=required)
    # --model takes files as well, so that any command can be given its target by one option.
    source.add_argument(
        "--model", metavar=ANY_TARGET, help="a model of the zoo, exported if needed; or a file, as by the next two"
    )
    source.add_argument("--onnx", type=Path, metavar="FILE", help="an exported ONNX file, its contract beside it")
    source.add_argument(
        "--engine", type=Path, metavar="FILE", help="a TensorRT engine of this machine, its manifest beside it"
    )
    add_fine(parser)
    parser.add_argument("--weights", type=Path, help="checkpoint for a model (default: random weights)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), help="of a model (default: fp32)")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of a model (default: its own)")
    parser.add_argument(
        "--rounded",
        action="store_true",
        help="of an FP16 ONNX file: round after every operator, as a device does; ONNX Runtime alone computes it in"
        " FP32 on x86 (slow)",
    )
    add_artifacts(parser)


def target_of(given: argparse.Namespace) -> Target:
    """Return what the options of :func:`add_target_options` name.

    Raises:
        ConfigError: when options of a model are given beside a file.
    """
    if given.model is None:
        refuse_fine(given.fine, given.onnx or given.engine)
        target = Target(onnx=given.onnx, engine=given.engine)
    else:
        target = Target.parse(given.model, given.fine)
    refuse_options_of_models(target, given, "weights", "precision", "input_size")
    return target


def open_target(given: argparse.Namespace, threads: int | None = None) -> Opened:
    """Open what the options of :func:`add_target_options` name.

    Args:
        given: the options.
        threads: of ONNX Runtime for each inference; ``None`` for its own choice.

    Raises:
        FineEdgeError: when it is missing, broken, stale or foreign.
    """
    target = target_of(given)
    if target.engine:
        if given.rounded:
            raise ConfigError("an engine rounds as it was built to", where="--rounded", hint="leave it out")
        return open_engine(target.engine)
    height, width = parse_size(given.input_size)
    size = {"height": height, "width": width}
    path = target.onnx_path(given.artifacts, given.weights, precision=given.precision or "fp32", **size)
    return open_onnx(path, rounded=given.rounded, threads=threads)
