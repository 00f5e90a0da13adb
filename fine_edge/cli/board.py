"""``fine-edge board HOST COMMAND ...``: run a command on a board, and have its results here."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fine_edge import console
from fine_edge.board.line import Line, read_host, read_ssh
from fine_edge.board.program import AboutBoard, install_code, install_environment, require_same_program
from fine_edge.board.results import SUFFIXES, fetch, key_of
from fine_edge.board.shipment import deliver
from fine_edge.cli import (
    arguments,
    bench,
    bench_batches,
    board_needs,
    doctor,
    engine,
    evaluate,
    parity,
    predict,
    stream,
)
from fine_edge.cli.arguments import Parser, add_json
from fine_edge.cli.board_needs import Task, here_instead
from fine_edge.errors import BoardError, ConfigError
from fine_edge.fields import from_data
from fine_edge.files import refuse_unwritable
from fine_edge.machine import GIB, MIB
from fine_edge.table import Column, Table

FOLDER = "~/.cache/fine_edge"
_VALUED = ("--folder", "--ssh", "--python")
_NAMED = 8
"""Number of results that are named."""


@dataclass(frozen=True)
class _Command:
    """A command that runs on a board: its parser, what it needs there, and its sub-commands that run here alone."""

    parser: Callable[[], argparse.ArgumentParser]
    need: Callable[[Task], None]
    here: tuple[str, ...] = ()


COMMANDS = {
    "doctor": _Command(doctor.make_parser, board_needs.need_nothing),
    "engine": _Command(engine.make_parser, board_needs.need_source, ("adopt", "inspect")),
    "parity": _Command(parity.make_parser, board_needs.need_golden),
    "predict": _Command(predict.make_parser, board_needs.need_pictures),
    "evaluate": _Command(evaluate.make_parser, board_needs.need_labelled_data, ("compare", "drift")),
    "stream": _Command(stream.make_parser, board_needs.need_sources),
    "bench": _Command(bench.make_parser, board_needs.need_suite, ("show", "compare")),
}


_OVER_BATCHES = _Command(bench_batches.make_parser, board_needs.need_open_batch)


def command_of(words: list[str]) -> _Command | None:
    """Return what runs on a board by these words; ``None`` for a word that nothing does."""
    if words[0] == "bench" and bench_batches.wants_batches(words):
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
    known.need(task)
    code, python = "", given.python
    if given.python:
        require_same_program(about, line)
    else:
        code = install_code(line, given.folder)
        python = install_environment(line, given.folder, code, about)
    sent = deliver(line, given.folder, task.shipment)
    argv, outputs = task.argv_there(), task.outputs
    key = key_of([code, *argv], sent)
    if key in about.results:
        console.remark("the board has finished this command already: its results are brought back")
        exit_code, results = fetch(line, given.folder, key, outputs)
    else:
        where = {"folder": given.folder, "python": python, "code": code, "key": key}
        exit_code = line.run(argv=argv, outputs=outputs.names, suffixes=SUFFIXES, **where)
        _, results = fetch(line, given.folder, key, outputs)
    for text in _named(results):
        console.remark(text)
    return exit_code


def main(argv: list[str]) -> int:
    """Show what is on the board, or run a command there; return its exit code."""
    own, words = _split(argv)
    given = _parser().parse_args(own)
    task = read_task(words) if words else None
    with Line(read_host(given.host), read_ssh(given.ssh), given.python or "python3") as line:
        with console.status(f"connecting to {given.host}"):
            about = _about(line, given.folder)
        if task:
            return _run(line, about, task, given)
    arguments.deliver(given, {"host": given.host, **vars(about)}, [_table(given.host, about)])
    return 0
