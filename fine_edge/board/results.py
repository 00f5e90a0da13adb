"""Results of a command: where they may lie, and bringing them back, each whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fine_edge import files
from fine_edge.board.line import Conversation, Line
from fine_edge.board.shipment import name_there
from fine_edge.errors import BoardError
from fine_edge.stream.sinks import CODECS
from fine_edge.text import printable

SUFFIXES = (".json", ".jsonl", ".png", ".html", ".csv", ".md", ".txt", ".log", *CODECS)
"""Endings of files that are brought back: engines, timing caches and ONNX files stay."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Outputs:
    """Files and folders of here that a command may write; results from the board go nowhere else."""

    paths: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """Return their names on the board."""
        return [name_there(path) for path in self.paths]

    def place(self, name: str) -> Path:
        """Return where a result goes.

        Raises:
            ValueError: when it is no result, or belongs to none of the outputs.
        """
        if Path(name).suffix not in SUFFIXES or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"{name[:80]!r} is the name of no result")
        for path, output in zip(self.paths, self.names, strict=True):
            if name == output:
                return path
            if name.startswith(f"{output}/"):
                return path / name[len(output) + 1 :]
        raise ValueError(f"{name[:80]!r} is no output of the command")


def fetch(line: Line, folder: str, key: str, outputs: Outputs) -> tuple[int, list[Path]]:
    """Bring the results of a command that has ended; return its exit code and the files.

    Raises:
        BoardError: when the connection breaks, or the board sends what is no result; it keeps the results.
        OutputError: when a file cannot be written here.
    """
    with line.asked("results were brought back", "send", folder=folder, key=key) as talk:
        reply = talk.reply()
        try:
            listed = [(outputs.place(name), str(name), int(size), str(sha)) for name, size, sha in reply["files"]]
            code = int(reply.get("code", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BoardError("sends what is no result of this command", where=line.host) from error
        for path, name, size, sha256 in listed:
            _take(talk, path, name, size, sha256)
        if "code" in reply:
            talk.write(b"taken\n")
            talk.reply()
    return code, [path for path, _, _, _ in listed]


def _take(talk: Conversation, path: Path, name: str, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    with files.written_together(path.parent, path.name) as partial, files.output_errors(path):
        with (partial / path.name).open("wb") as handle:
            left = size
            while left:
                block = talk.read(min(left, _BLOCK))
                digest.update(block)
                handle.write(block)
                left -= len(block)
        if digest.hexdigest() != sha256:
            what = f"{printable(name)} arrived otherwise than it was sent"
            raise BoardError(what, where=talk.host, hint="give the same command again")


def key_of(argv: Sequence[str], sent: Mapping[str, str]) -> str:
    """Return what a command's results are known by: its arguments, and the hashes of all files that it was given."""
    whole = files.sha256_of_hashes({**sent, **{f"{number}\0": word for number, word in enumerate(argv)}})
    return whole[:16]
