"""What a command needs on a board, and which of its words name files: each command as its own parser reads it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from fine_edge.bench.backends import ESTIMATES
from fine_edge.bench.prepare import export_row
from fine_edge.board.results import Outputs
from fine_edge.board.shipment import Shipment, argument_there, artifact_files
from fine_edge.cli import bench_batches, engine
from fine_edge.cli.arguments import STDOUT
from fine_edge.cli.bench import read_options
from fine_edge.cli.target import Target, target_of
from fine_edge.engine.options import read_recipe, recipe_path
from fine_edge.engine.source import model_of
from fine_edge.errors import ConfigError
from fine_edge.export.request import parse_batches, parse_size
from fine_edge.images import SUFFIXES as PICTURES
from fine_edge.stream.source import comes_live, file_path

OUTPUTS = ("json", "csv", "markdown", "picture", "html", "out", "artifacts", "profile")
"""Options whose files come back."""
_OF_MODELS = ("--weights", "--precision", "--input-size")
"""Options of what finds objects in pictures that say how a model is exported."""


def here_instead(words: list[str]) -> str:
    """Return the command that runs here."""
    return f"without `board`: fine-edge {' '.join(words[:2])} ..."


@dataclass
class Task:
    """A command for the board.

    Attributes:
        argv: its words, as they were typed.
        given: what its own parser made of them.
        shipment: the files that it needs there.
        more: words that are added there; of an option that is given twice the last one counts.
    """

    argv: list[str]
    given: argparse.Namespace
    shipment: Shipment = field(default_factory=Shipment)
    more: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> Outputs:
        """Return the files and folders that it may write."""
        named = (getattr(self.given, name, None) for name in OUTPUTS)
        return Outputs(tuple(path for path in named if path is not None and path != STDOUT))

    def argv_there(self) -> list[str]:
        """Return its words for the board, where absolute paths and those that lead upwards are others."""
        values = [value for name, value in vars(self.given).items() if name != "root"]
        paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
        moved = {path: argument_there(path) for path in paths if isinstance(path, Path) and path != STDOUT}
        moved = {path: there for path, there in moved.items() if path.is_absolute() or ".." in path.parts}
        words = []
        for word in self.argv:
            option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
            words.append(f"{option}{equals}{moved.get(Path(value), value)}")
        return words + self.more


def need_nothing(_task: Task) -> None:
    """The command works on what is on the board."""


def need_pictures(task: Task) -> None:
    """Send the pictures, and what finds objects in them."""
    for path in task.given.images:
        task.shipment.add_path(path, PICTURES, deep=False)
    need_target(task)


def need_target(task: Task) -> None:
    """Send the ONNX file that is named, or that a model is exported to here."""
    given = task.given
    if not (given.model or given.onnx or given.engine):
        raise ConfigError("give one of --model, --onnx and --engine")
    target = target_of(given)
    if target.engine:  # which lies on the board
        given.engine = target.engine
        return
    height, width = parse_size(given.input_size)
    size = {"height": height, "width": width}
    onnx = target.onnx_path(given.artifacts, given.weights, precision=given.precision or "fp32", **size)
    task.shipment.add(*artifact_files(onnx))
    if given.model:
        task.argv = _without_options_of_models(task.argv)
        task.more = ["--model", argument_there(onnx)]


def _without_options_of_models(argv: list[str]) -> list[str]:
    """Leave out how a model is exported: the board gets a file, which refuses these options."""
    kept, is_value = [], False
    for word in argv:
        name, equals, _ = word.partition("=")
        # argparse takes the beginning of an option's name as well.
        ours = not is_value and len(name) > len("--") and any(option.startswith(name) for option in _OF_MODELS)
        if not ours and not is_value:
            kept.append(word)
        is_value = ours and not equals
    return kept


def need_sources(task: Task) -> None:
    """Send the videos and pictures that lie here; cameras and network streams are those that the board sees."""
    given = task.given
    if given.show:
        what = "the window would open on the board's own screen"
        raise ConfigError(what, where="--show", hint="write a file, which is brought back: --out FILE.mp4")
    given.sources = [text if comes_live(text) else file_path(text) for text in given.sources]
    for source in given.sources:
        if isinstance(source, Path):
            task.shipment.add_path(source, PICTURES, deep=False)
    need_target(task)


def need_labelled_data(task: Task) -> None:
    """Send labels and pictures, and what is evaluated on them."""
    given = task.given
    if given.detections:
        raise ConfigError(
            "a file of detections is scored without a board", where="--detections", hint=here_instead(task.argv)
        )
    if not given.images:
        raise ConfigError("the pictures are missing", where="--images", hint="give their folder")
    task.shipment.add_path(given.data)
    panoptic = given.data.with_suffix("")
    if given.data.is_file() and panoptic.is_dir() and any(panoptic.glob("*.png")):
        task.shipment.add_folder(panoptic, {".png"})
    task.shipment.add_path(given.images, PICTURES)
    need_target(task)


def need_golden(task: Task) -> None:
    """Send the ONNX file that is compared with its golden outputs; an engine lies on the board."""
    given = task.given
    if not given.golden:
        hint = "--golden compares with the outputs that were stored when the model was exported"
        raise ConfigError("the board has no PyTorch to compare with", where="parity", hint=hint)
    target = Target.parse(given.target)
    if target.engine:
        given.engine = target.engine
        return
    height, width = parse_size(given.input_size)
    options = {
        "precision": given.precision or "fp32",
        "height": height,
        "width": width,
        "raw": given.raw,
        "seed": given.seed,
    }
    onnx = target.onnx_path(given.artifacts, given.weights, precision=given.precision or "fp32", **options)
    task.shipment.add(*artifact_files(onnx))
    json = [] if given.json is None else ["--json"] if given.json == STDOUT else ["--json", argument_there(given.json)]
    task.argv, task.more = ["parity", argument_there(onnx), "--golden", *json], []


def need_suite(task: Task) -> None:
    """Send the files of every row of a suite, with their recipes."""
    given = task.given
    if given.backend == ESTIMATES:
        raise ConfigError("estimates need no board", where=f"--backend {ESTIMATES}", hint=here_instead(task.argv))
    if given.targets:
        hint = f"add --batches 1 for {given.targets[0]} alone, or measure a --suite"
        raise ConfigError("files that are named are not measured over ssh", where=given.targets[0], hint=hint)
    options = read_options(given, "ort")
    if any(row.exporter == "plain" for row in options.chosen_suite.rows):
        what = f"the libraries' own exporters need PyTorch, which {options.suite} calls on the machine that measures"
        raise ConfigError(what, where="--suite", hint="measure it here, or another suite there")
    for row in {(row.model, row.raw): row for row in options.chosen_suite.rows}.values():
        onnx = export_row(row, given.artifacts, options.input_hw, options.onnx_precision, options.frame)
        task.shipment.add(*artifact_files(onnx))
        task.shipment.add_or_remove(recipe_path(row.model, given.artifacts))
    if given.images:
        task.shipment.add_path(given.images, PICTURES, deep=False)


def need_open_batch(task: Task) -> None:
    """Send the ONNX file that is measured at several batches; an engine lies on the board."""
    given = task.given
    target = Target.parse(given.target)
    given.target = target.engine or target.onnx or given.target
    if not target.engine:
        onnx = bench_batches.onnx_file(target, bench_batches.read_options(given, target), given)
        task.shipment.add(*artifact_files(onnx))
        task.shipment.add_or_remove(recipe_path(model_of(onnx), given.artifacts))
    if given.images:
        task.shipment.add_path(given.images, PICTURES, deep=False)


def need_source(task: Task) -> None:
    """Send what an engine is built from; nothing for the other sub-commands, which look at an engine there."""
    given = task.given
    if given.command != "build":
        return
    target = Target.parse(given.source)
    given.source = target.onnx or given.source
    model = target.model or model_of(target.onnx_path(given.artifacts))
    precision = given.precision or read_recipe(model, given.recipes).precision
    batches = parse_batches(given.batch)[1] if given.batch else None
    onnx = target.onnx or engine.exported_for(model, precision, batches, given.artifacts)
    task.shipment.add(*artifact_files(onnx), *given.plugin_library, *filter(None, [given.keep_fp32]))
    task.shipment.add_or_remove(recipe_path(model, given.recipes))
