"""What a command needs on the board: files, the folders that must hold nothing else, and where they lie there."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fine_edge import console
from fine_edge.board.line import Line
from fine_edge.contract import bound_contract, contract_path
from fine_edge.errors import ArtifactError, BoardError, DataError
from fine_edge.files import file_size, sha256_of
from fine_edge.graph.model_file import read_model, weight_files
from fine_edge.machine import MIB

_BLOCK = 1 << 18  # bytes


def name_there(path: Path) -> str:
    """Return where a file or folder of here lies below the folder on the board."""
    # Links are not resolved: the command there names the link.
    whole = os.path.normpath(path.absolute())
    inside = os.path.relpath(whole, Path.cwd())
    return f"elsewhere{whole}" if Path(inside).parts[:1] == ("..",) else os.path.normpath(f"work/{inside}")


def argument_there(path: Path) -> str:
    """Return what the command on the board, which runs in ``work``, is given for a path of here."""
    found = os.path.relpath(name_there(path), "work")
    # A file called -x would be taken for an option there.
    return f"./{found}" if found.startswith("-") else found


def artifact_files(onnx: Path) -> list[Path]:
    """Return the ONNX file and all that belongs to it: its weights, and its contract and golden file if it has them.

    Raises:
        ArtifactError: when one of them is missing, or they do not belong together.
    """
    # Only the names of the files with weights are needed, not the gigabytes inside.
    files = [onnx, *weight_files(read_model(onnx, weights=False), onnx).values()]
    if contract_path(onnx).is_file():
        contract, artifact = bound_contract(onnx)
        named = {golden["file"] for golden in (contract.golden, contract.golden_of(artifact)) if golden}
        files += [contract_path(onnx), *(path for path in map(onnx.with_name, sorted(named)) if path.is_file())]
    return files


@dataclass
class Shipment:
    """Files for the board.

    Attributes:
        files: by their name there.
        absent: names that must not be there.
        folders: name there, whether folders inside count, and the endings that count (empty: all); no other file than
            of ``files`` may be in them.
    """

    files: dict[str, Path] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    folders: list[tuple[str, bool, list[str]]] = field(default_factory=list)

    def add(self, *paths: Path) -> None:
        """Add files."""
        self.files.update((name_there(path), path) for path in paths)

    def add_or_remove(self, path: Path) -> None:
        """Add a file if it is here; else it must not be there either."""
        if path.is_file():
            self.add(path)
        else:
            self.absent.append(name_there(path))

    def add_folder(self, folder: Path, suffixes: Collection[str] = (), *, deep: bool = True) -> None:
        """Add the files in a folder.

        Args:
            folder: here.
            suffixes: endings of the files that count, in small letters; empty: all files.
            deep: whether the folders inside count.

        Raises:
            DataError: when it holds no such file.
        """
        try:
            paths = sorted(folder.rglob("*") if deep else folder.iterdir())
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error})", where=folder) from error
        found = [path for path in paths if (not suffixes or path.suffix.lower() in suffixes) and path.is_file()]
        if not found:
            raise DataError("the folder holds no file that the board would need", where=folder)
        self.add(*found)
        self.folders.append((name_there(folder), deep, sorted(suffixes)))

    def add_path(self, path: Path, suffixes: Collection[str] = (), *, deep: bool = True) -> None:
        """Add a file, or the files in a folder as :meth:`add_folder` does."""
        if path.is_dir():
            self.add_folder(path, suffixes, deep=deep)
        else:
            file_size(path, DataError)
            self.add(path)


def _listed(files: Mapping[str, Path]) -> list[tuple[str, int, str]]:
    """Return name, size in bytes and sha256 of every file."""
    listed = []
    for name, path in files.items():
        size = file_size(path, ArtifactError)
        try:
            listed.append((name, size, sha256_of(path)))
        except OSError as error:
            raise ArtifactError(f"cannot be read ({error.strerror or error})", where=path) from error
    return listed


def deliver(line: Line, folder: str, shipment: Shipment) -> dict[str, str]:
    """Copy what the board does not have, each file whole or not at all; return the sha256 of all, by name.

    Raises:
        BoardError: when the connection breaks; what has arrived stays, and is not sent again.
    """
    with console.status("comparing files"):
        listed = _listed(shipment.files)
    # In the order of ``listed``: the board asks for files by their number in it.
    paths = list(shipment.files.values())
    header = {"files": listed, "absent": shipment.absent, "folders": shipment.folders}
    with line.asked("files were copied", "receive", folder=folder) as talk:
        talk.write(json.dumps(header).encode() + b"\n")
        wanted = _wanted(talk.reply(), listed, line.host)
        total = sum(listed[number][1] - begun for number, begun in wanted)
        if wanted:
            console.remark(f"copying {len(wanted)} of {len(listed)} files, {total / MIB:.1f} MiB")
        with console.progress() as bar:
            task = bar.add_task("copying, KiB", total=total // 1024)
            # Of a copy that broke off, the board keeps what had arrived: each file goes on where it ended.
            for number, begun in wanted:
                left = listed[number][1] - begun
                with paths[number].open("rb") as handle:
                    handle.seek(begun)
                    while left:
                        block = handle.read(min(left, _BLOCK))
                        # Its hash is of all of it, so what has arrived by now is no whole file of anything.
                        if not block:
                            raise ArtifactError("became shorter while it was copied", where=paths[number])
                        talk.write(block)
                        left -= len(block)
                        bar.advance(task, len(block) / 1024)
        talk.reply()
    return {name: sha256 for name, _, sha256 in listed}


def _wanted(reply: Mapping[str, object], listed: list[tuple[str, int, str]], host: str) -> list[tuple[int, int]]:
    """Return which files the board asks for, by number, and from which byte.

    Raises:
        BoardError: when it asks for what was not offered.
    """
    try:
        wanted = [(int(number), int(begun)) for number, begun in reply["wanted"]]  # type: ignore[attr-defined]
        # A board that is no board of ours must not make this machine send what was not named.
        if all(0 <= number < len(listed) and 0 <= begun <= listed[number][1] for number, begun in wanted):
            return wanted
    except (KeyError, TypeError, ValueError):
        pass
    raise BoardError("asks for files that it was not offered", where=host)
