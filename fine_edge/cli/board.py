"""``fine-edge board HOST COMMAND ...``: run a command on a board with the files that it needs, and have its results."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fine_edge import console
from fine_edge.bench.backends import ESTIMATES
from fine_edge.bench.prepare import export_row
from fine_edge.board.line import Line, read_host, read_ssh
from fine_edge.board.program import (
    SUFFIXES,
    AboutBoard,
    Outputs,
    fetch,
    install_code,
    install_environment,
    key_of,
    require_same_program,
)
from fine_edge.board.shipment import Shipment, argument_there, artifact_files, deliver
from fine_edge.cli import arguments, bench, doctor, engine, evaluate, parity, predict, stream
from fine_edge.cli.arguments import STDOUT, Parser, add_json
from fine_edge.cli.bench import read_options
from fine_edge.cli.target import Target, target_of
from fine_edge.engine.options import read_recipe, recipe_path
from fine_edge.engine.source import model_of
from fine_edge.errors import BoardError, ConfigError
from fine_edge.export.request import parse_batches, parse_size
from fine_edge.fields import from_data
from fine_edge.files import refuse_unwritable
from fine_edge.images import SUFFIXES as PICTURES
from fine_edge.machine import GIB, MIB
from fine_edge.stream.source import comes_live, file_path
from fine_edge.table import Column, Table

# What a command needs on a board, and which of its words name files: each command as its own parser reads it.

# Options whose files come back.
# A test compares it with the options of every parser: each one with a file is known as going there or coming back.
OUTPUTS = ("json", "csv", "markdown", "picture", "html", "out", "artifacts", "profile")
# Options of what finds objects in pictures that say how a model is exported.
_OF_MODELS = ("--weights", "--precision", "--input-size")


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
        # --root names a tree of the board's own.
        values = [value for name, value in vars(self.given).items() if name != "root"]
        paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
        moved = {path: argument_there(path) for path in paths if isinstance(path, Path) and path != STDOUT}
        # Relative paths are the same there, as the command runs in the counterpart of the working folder.
        moved = {path: there for path, there in moved.items() if path.is_absolute() or ".." in path.parts}
        words = []
        for word in self.argv:
            # Words are replaced, not options written anew: what the parser of here leaves out of the namespace would be
            # lost.
            option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
            words.append(f"{option}{equals}{moved.get(Path(value), value)}")
        return words + self.more


def need_nothing(_task: Task) -> None:
    """The command works on what is on the board."""


def need_pictures(task: Task) -> None:
    """Send the pictures, and what finds objects in them."""
    for path in task.given.images:
        task.shipment.add_path(path, PICTURES, deep=False)
    # The pictures first: a folder without any is told before a model is exported.
    need_target(task)


def need_target(task: Task) -> None:
    """Send the ONNX file that is named, or that a model is exported to here."""
    given = task.given
    if not (given.model or given.onnx or given.engine):
        raise ConfigError("give one of --model, --onnx and --engine")
    target = target_of(given)
    if target.engine:  # which lies on the board
        # --model takes a file as well: the namespace names it as an engine from here on.
        given.engine = target.engine
        return
    height, width = parse_size(given.input_size)
    size = {"height": height, "width": width}
    onnx = target.onnx_path(given.artifacts, given.weights, precision=given.precision or "fp32", **size)
    task.shipment.add(*artifact_files(onnx))
    if given.model:
        task.argv = _without_options_of_models(task.argv)
        # The board has no torch: of a model it gets the exported file, under the option that was given.
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
    # Paths from here on, so that they are moved as the other paths are.
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
    # COCO's panoptic format keeps its maps in a folder that is called as the file is, without .json.
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
    onnx = target.onnx_path(given.artifacts, given.weights, **options)
    task.shipment.add(*artifact_files(onnx))
    json = [] if given.json is None else ["--json"] if given.json == STDOUT else ["--json", argument_there(given.json)]
    # Written anew: all that the other options say is in the file by now.
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
    # A baseline that is measured beside several others has a row for each, and one file.
    for row in {(row.model, row.raw): row for row in options.chosen_suite.rows}.values():
        onnx = export_row(row, given.artifacts, options.input_hw, options.onnx_precision, options.frame)
        task.shipment.add(*artifact_files(onnx))
        # A recipe of an earlier command would build another engine than the one that is asked for.
        task.shipment.add_or_remove(recipe_path(row.model, given.artifacts))
    if given.images:
        task.shipment.add_path(given.images, PICTURES, deep=False)


def need_open_batch(task: Task) -> None:
    """Send the ONNX file that is measured at several batches; an engine lies on the board."""
    given = task.given
    target = Target.parse(given.target)
    given.target = target.engine or target.onnx or given.target
    if not target.engine:
        onnx = bench.onnx_file(target, bench.read_batch_options(given, target), given)
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
    # The recipe goes by the model's name, which the contract of a file says.
    model = target.model or model_of(target.onnx_path(given.artifacts))
    precision = given.precision or read_recipe(model, given.recipes).precision
    batches = parse_batches(given.batch)[1] if given.batch else None
    onnx = target.onnx or engine.exported_for(model, precision, batches, given.artifacts)
    task.shipment.add(*artifact_files(onnx), *given.plugin_library, *filter(None, [given.keep_fp32]))
    task.shipment.add_or_remove(recipe_path(model, given.recipes))


# The board's home: ~ goes there as it is.
FOLDER = "~/.cache/fine_edge"
# Options of this command with a value behind them, which is not HOST. argparse cannot tell: it would take the options
# of the command behind HOST for its own.
_VALUED = ("--folder", "--ssh", "--python")
# Number of results that are named.
_NAMED = 8


@dataclass(frozen=True)
class _Command:
    """A command that runs on a board: its parser, what it needs there, and its sub-commands that run here alone."""

    parser: Callable[[], argparse.ArgumentParser]
    need: Callable[[Task], None]
    here: tuple[str, ...] = ()


COMMANDS = {
    "doctor": _Command(doctor.make_parser, need_nothing),
    "engine": _Command(engine.make_parser, need_source, ("adopt", "inspect")),
    "parity": _Command(parity.make_parser, need_golden),
    "predict": _Command(predict.make_parser, need_pictures),
    "evaluate": _Command(evaluate.make_parser, need_labelled_data, ("compare", "drift")),
    "stream": _Command(stream.make_parser, need_sources),
    "bench": _Command(bench.make_parser, need_suite, ("show", "compare")),
}


_OVER_BATCHES = _Command(bench.make_batches_parser, need_open_batch)


def command_of(words: list[str]) -> _Command | None:
    """Return what runs on a board by these words; ``None`` for a word that nothing does."""
    if words[0] == "bench" and bench.wants_batches(words):
        return _OVER_BATCHES
    return COMMANDS.get(words[0])


def read_task(words: list[str]) -> Task:
    """Return the command that was typed behind HOST, read as the command itself would read it.

    Raises:
        ConfigError: when it does not run on a board.
        OutputError: when its results could not be written here.
    """
    known = command_of(words)
    if known is None:
        hint = f"these run there: {', '.join(COMMANDS)}"
        raise ConfigError(f"{words[0]!r} is no command for a board", where="fine-edge board", hint=hint)
    if words[1:] and words[1] in known.here:
        raise ConfigError(f"{' '.join(words[:2])} needs no board", where="fine-edge board", hint=here_instead(words))
    task = Task(list(words), known.parser().parse_args(words[1:]))
    if getattr(task.given, "fine", None) is not None:
        hint = "name the model with its options, such as rtdetr_r18_fine_heads4"
        raise ConfigError("is not for a board, which gets files", where="--fine", hint=hint)
    # Before anything is copied. What has no ending of a result is a folder.
    refuse_unwritable(path / "x.json" if path.suffix not in SUFFIXES else path for path in task.outputs.paths)
    return task


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of this command, HOST among them, and those of the command behind it."""
    place, host = 0, False
    while place < len(argv):
        word, following = argv[place], argv[place + 1 : place + 2]
        is_option = word.startswith("-")
        if host and not is_option:
            return argv[:place], argv[place:]
        host = host or not is_option
        takes_next = word in _VALUED or (word == "--json" and following and following[0].endswith(".json"))
        place += 2 if takes_next else 1
    return argv, []


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge board",
        usage="fine-edge board [options] HOST [COMMAND ...]",
        description="Run a command on a board, reached by ssh, with files from here and its results back here."
        " Without a COMMAND: what is on the board.",
        epilog=f"COMMAND with its options as here: {', '.join(COMMANDS)}. Models are exported here, engines stay there."
        " Exit code: the command's.",
    )
    parser.add_argument("host", metavar="HOST", help="as ssh names it: user@board, or a name of ~/.ssh/config")
    parser.add_argument("--folder", default=FOLDER, metavar="DIR", help="on the board (default: %(default)s)")
    parser.add_argument("--ssh", default="ssh", metavar="COMMAND", help="with options of its own: 'ssh -p 2222 -i KEY'")
    parser.add_argument(
        "--python", metavar="PATH", help="on the board, one that has fine_edge (default: an environment is made there)"
    )
    add_json(parser)
    return parser


def _about(line: Line, folder: str) -> AboutBoard:
    reply = line.ask("the board was asked", "about", folder=folder)
    try:
        return from_data(AboutBoard, reply)
    except ValueError as error:
        hint = "is another program called python3 there?"
        raise BoardError(f"answers what is no answer ({error})", where=line.host, hint=hint) from error


def _table(host: str, about: AboutBoard) -> Table:
    table = Table(f"{host}: {about.folder}", [Column("What", numeric=False), Column("Found", numeric=False)])
    table.add("board", about.model or about.arch)
    table.add("L4T", about.l4t)
    table.add("TensorRT", about.tensorrt)
    table.add("Python", about.python)
    table.add("disk free", f"{about.free_bytes / GIB:.1f} GiB")
    table.add("environments", ", ".join(about.environments) or "none: the first command makes one")
    for name, size in about.artifacts.items():
        table.add("artifact" if name.endswith(".onnx") else "engine", f"{name}, {size / MIB:.1f} MiB")
    if about.results:
        table.add("results", f"of {len(about.results)} commands, not brought back: give the command again")
    return table


def _named(paths: list[Path]) -> Iterator[str]:
    yield from (f"from the board: {path}" for path in itertools.islice(paths, _NAMED))
    if len(paths) > _NAMED:
        yield f"from the board: {len(paths) - _NAMED} more files beside them"


def _run(line: Line, about: AboutBoard, task: Task, given: argparse.Namespace) -> int:
    """Bring what the command needs, run it, and bring its results; return its exit code."""
    known = command_of(task.argv)
    assert known is not None  # as read_task found it
    # Exports come before anything is sent: one that fails leaves nothing on the board.
    known.need(task)
    code, python = "", given.python
    if given.python:
        require_same_program(about, line)
    else:
        code = install_code(line, given.folder)
        python = install_environment(line, given.folder, code, about)
    sent = deliver(line, given.folder, task.shipment)
    # Behind ``need``, which may have put files in the place of models.
    argv, outputs = task.argv_there(), task.outputs
    # The program counts too: another version may give another result for the same words and files.
    key = key_of([code, *argv], sent)
    if key in about.results:
        console.remark("the board has finished this command already: its results are brought back")
        exit_code, results = fetch(line, given.folder, key, outputs)
    else:
        where = {"folder": given.folder, "python": python, "code": code, "key": key}
        # Results come back whatever the exit code: a check that failed has written its record.
        exit_code = line.run(argv=argv, outputs=outputs.names, suffixes=SUFFIXES, **where)
        _, results = fetch(line, given.folder, key, outputs)
    for text in _named(results):
        console.remark(text)
    return exit_code


def main(argv: list[str]) -> int:
    """Show what is on the board, or run a command there; return its exit code."""
    own, words = _split(argv)
    given = _parser().parse_args(own)
    # Read before the connection is made, which may ask for a password.
    task = read_task(words) if words else None
    with Line(read_host(given.host), read_ssh(given.ssh), given.python or "python3") as line:
        with console.status(f"connecting to {given.host}"):
            about = _about(line, given.folder)
        if task:
            return _run(line, about, task, given)
    arguments.deliver(given, {"host": given.host, **vars(about)}, [_table(given.host, about)])
    return 0
