"""What the commands share: options that mean the same in all of them, and how results are delivered."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fine_edge import console, files
from fine_edge.engine.options import batch_size, optimum_size
from fine_edge.errors import ConfigError
from fine_edge.fields import MOST_SEED
from fine_edge.graph.input_size import InputSize
from fine_edge.table import Table

STDOUT = Path("-")
ARTIFACTS = Path("engines")
# Options that name a file of results, of whatever command; ``-`` stands for standard output.
# Each is checked before any work: whether it can be written, and whether it would replace something that is read.
_RESULTS = ("json", "csv", "markdown", "picture", "html", "keep_list", "layer_precisions")


def _with_value(argv: Sequence[str]) -> list[str]:
    """Give a bare ``--json`` its value, so that it never takes the argument behind it for its file."""
    # argparse's optional value would take a positional argument: of "--json a.png" the picture would be overwritten.
    following = [*argv, ""][1:]
    return [
        f"--json={STDOUT}" if word == "--json" and not (after.endswith(".json") or after == str(STDOUT)) else word
        for word, after in zip(argv, following, strict=True)
    ]


def _refuse_to_replace(given: argparse.Namespace, results: Mapping[str, Path]) -> None:
    """Refuse a result under the name of another one, or of a file that the command reads.

    Links are not followed: a result takes the place of a link, and leaves alone what it leads to.

    Raises:
        ConfigError: naming the option.
    """
    for option, result in results.items():
        for name, value in vars(given).items():
            others = value if isinstance(value, list) else [value]
            paths = [other for other in others if isinstance(other, str | Path) and name != option]
            # Everything that was given is looked at, names of models too: a file may well have such a name.
            if any(os.path.abspath(other) == os.path.abspath(result) for other in paths):  # noqa: PTH100 - no links
                what = f"would replace {result.name}, which is named for something else as well"
                raise ConfigError(what, where=f"--{option.replace('_', '-')}", hint="choose another name")


class Parser(argparse.ArgumentParser):
    """A parser of one command; files that results go to are known to be writable once it has parsed."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, a bare ``--json`` among them.

        Raises:
            ConfigError: when a file that was named for results is named for something else as well.
            OutputError: when it cannot be written.
        """
        # Sub-parsers do not come here: argparse calls their parse_known_args.
        return self._writable(super().parse_args(_with_value(args or []), namespace))

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as :meth:`parse_args`, with options between those that have no name."""
        return self._writable(super().parse_intermixed_args(_with_value(args or []), namespace))

    def _writable(self, given: Any) -> Any:
        named = {name: getattr(given, name, None) for name in _RESULTS}
        results = {name: Path(path) for name, path in named.items() if path is not None and str(path) != str(STDOUT)}
        _refuse_to_replace(given, results)
        files.refuse_unwritable(results.values())
        return given

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit code 2."""
        # "--json results.txt" leaves results.txt over, and argparse's message does not say why.
        if re.match(r"unrecognized arguments: [^-]", message) and "--json" in self.format_usage():
            message += " (a FILE for --json ends in .json)"
        super().error(message)


def sub_command(argv: list[str], commands: Mapping[str, Callable[[list[str]], int]]) -> Callable[[], int] | None:
    """Return the command that the first argument names, ready to run; ``None`` when it names none."""
    if not argv or argv[0] not in commands:
        return None
    return lambda: commands[argv[0]](argv[1:])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json [FILE]``."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        type=Path,
        metavar="FILE",
        help="print the result as JSON in place of tables; with a FILE, write it there as well as the tables",
    )


def add_artifacts(parser: argparse.ArgumentParser, default: Path = ARTIFACTS, *, or_out: bool = False) -> None:
    """Add ``--artifacts DIR``, where exported files and engines lie.

    Args:
        parser: of the command.
        default: folder.
        or_out: also take ``--out``, as the commands did that write nothing else.
    """
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=default,
        metavar="DIR",
        help="exported files and engines (default: %(default)s)",
    )
    if or_out:
        parser.add_argument("--out", dest="artifacts", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_fine(parser: argparse.ArgumentParser, of: str = "of a model") -> None:
    """Add ``--fine OPTIONS``, see :class:`fine_edge.fine_options.FineOptions`."""
    parser.add_argument(
        "--fine",
        metavar="r=1,heads=4,...",
        help=f"options of the FINE {of}: attention, r, k, heads, d, down, modulation, ffn, window, areas",
    )


def _seed(text: str) -> int:
    # int takes more than a seed is: signs, blanks, underscores, and digits of other scripts.
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MOST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number of 0 to {MOST_SEED}")
    return int(text)


def count(text: str) -> int:
    """Return a number of things, of which there is one at least; the type of an option."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them: give 1 or more")
    return int(text)


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """Add ``--seed``, which every library takes."""
    parser.add_argument("--seed", type=_seed, default=0, help=f"{of} (default: 0)")


def add_input_size(
    parser: argparse.ArgumentParser, of: str = "a graph whose input is dynamic", *, ranges: bool = False
) -> None:
    """Add ``--input-size`` and ``--batch``; :func:`input_size_of` reads both where ``--batch`` takes no ranges."""
    parser.add_argument("--input-size", metavar="SIDE|HxW", help=f"of {of}, pixels")
    # A range stays text here: what it may be depends on the graph, which is not read yet.
    metavar, kind = ("N|MIN:MAX", str) if ranges else ("N", int)
    alone = "pictures at a time, or MIN:OPTIMUM:MAX (default: 1, or the graph's)"
    text = alone if ranges else "pictures at a time (default: 1; of an open batch, its optimum)"
    parser.add_argument("--batch", type=kind, metavar=metavar, help=text)


def input_size_of(given: argparse.Namespace, path: Path | None) -> InputSize | None:
    """Return the size that a graph is compiled for; ``None`` where that is its own.

    A graph whose batch alone is open has the rest of its size; without ``--batch`` it is compiled at its optimum, and
    that is said.

    Args:
        given: options of :func:`add_input_size`.
        path: the ONNX file; ``None`` where there is none.
    """
    if given.input_size is not None or path is None:
        return InputSize.parse(given.input_size, given.batch)
    if given.batch is not None:
        return batch_size(path, given.batch)
    size = optimum_size(path)
    if size:
        console.remark(
            f"{path.name} takes several batches: compiled for {size.batch}, its optimum; --batch N for another"
        )
    return size


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add ``--explain``."""
    parser.add_argument("--explain", action="store_true", help="also print what the columns mean and every warning")


def add_table_files(parser: argparse.ArgumentParser, picture: str) -> None:
    """Add ``--csv``, ``--markdown`` and ``--picture``."""
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)


def deliver(given: argparse.Namespace, data: Any, tables: Iterable[Table]) -> None:
    """Print tables, or JSON in their place where ``--json`` asks for it; write the JSON file that it names."""
    # Nothing but JSON goes to standard output then, so that a program can read it.
    if given.json == STDOUT:
        console.print_json(data)
        return
    for number, table in enumerate(tables):
        if number:
            console.out.print()
        # Not every command has --explain.
        table.print(console.out, explain=getattr(given, "explain", False))
    if given.json:
        files.write_text(given.json, console.json_text(data))


def deliver_files(
    given: argparse.Namespace, table: Table, draw: Callable[[Path], None], also: Iterable[Table] = ()
) -> None:
    """Write what ``--csv``, ``--markdown`` and ``--picture`` ask for; Markdown holds the other tables as well."""
    if given.csv:
        files.write_text(given.csv, table.to_csv())
    if given.markdown:
        files.write_text(given.markdown, "\n".join(one.to_markdown() for one in (table, *also)))
    if given.picture:
        draw(given.picture)
        console.remark(f"picture: {given.picture}")
