"""The program itself on the board, its code and its environment, and the results that it leaves there."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import fine_edge
from fine_edge import console, files
from fine_edge.board.agent_files import code_sha256
from fine_edge.board.line import Conversation, Line
from fine_edge.board.shipment import Shipment, deliver, name_there
from fine_edge.errors import BoardError, ConfigError
from fine_edge.fields import Sha256, Text, Whole
from fine_edge.stream.sinks import CODECS
from fine_edge.text import printable

PACKAGE = Path(fine_edge.__file__).parent
_DISTRIBUTION = "fine-edge"
# Of a line of the package's metadata such as: pycuda>=2024.1; extra == "device"
_EXTRA = re.compile(r"""extra\s*==\s*["']device["']""")


@dataclass(frozen=True)
class AboutBoard:
    """What is on a board.

    Attributes:
        folder: everything of ours lies in it.
        python: version of its ``python3``.
        executable: that Python.
        arch: such as ``aarch64``.
        model: of the device tree; ``None`` where there is none.
        l4t: release of Jetson Linux; ``None`` on other machines.
        tensorrt: version of its Python package; ``None`` without it.
        free_bytes: of the disk that ``folder`` is on.
        fine_edge_sha256: of the package that ``executable`` imports itself; ``None`` without one.
        environments: names of those that are whole.
        codes: names of the copies of this program.
        artifacts: bytes of ONNX files and engines, by path.
        results: keys of commands whose results were not brought back.
    """

    folder: Text
    python: Text
    executable: Text
    arch: Text
    model: Text | None
    l4t: Text | None
    tensorrt: Text | None
    free_bytes: Whole
    fine_edge_sha256: Sha256 | None
    environments: list[Text]
    codes: list[Text]
    artifacts: dict[str, Whole]
    results: list[Text]

    @property
    def is_device(self) -> bool:
        """Whether TensorRT runs there: the extra ``device`` is then installed."""
        return self.l4t is not None or self.tensorrt is not None


def requirements(*, device: bool) -> list[str]:
    """Return what pip must install for this program, as its ``pyproject.toml`` says.

    Args:
        device: with the extra for TensorRT.

    Raises:
        ConfigError: where neither a checkout nor an installed package says it.
    """
    checkout = PACKAGE.parent / "pyproject.toml"
    if checkout.is_file() and sys.version_info >= (3, 11):
        import tomllib  # Python 3.11 has it; metadata of an editable install can be older than the checkout

        project = tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *(project["optional-dependencies"]["device"] if device else [])]
    try:
        listed = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "fine-edge is not installed here, so nothing says what it imports", hint="make setup"
        ) from None
    # Other extras, torch among them, are for this machine.
    own = [line for line in listed if "extra ==" not in line]
    return own + [line.split(";")[0].strip() for line in listed if device and _EXTRA.search(line)]


def install_code(line: Line, folder: str) -> str:
    """Copy this very program to the board; return the name of its folder there."""
    # By content: a checkout that was edited gets a folder of its own, and no command runs on half of each.
    name = f"code-{code_sha256(PACKAGE)[:16]}"
    files = {path.relative_to(PACKAGE.parent): path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts}
    shipment = Shipment({f"{name}/{inside.as_posix()}": path for inside, path in files.items() if path.is_file()})
    deliver(line, folder, shipment)
    return name


def install_environment(line: Line, folder: str, code: str, about: AboutBoard) -> str:
    """Make the environment on the board unless it is there; return its Python.

    It is known by what it is made of: the requirements, and the Python that it is made with.
    """
    wanted = requirements(device=about.is_device)
    # A virtual environment is bound to its Python: an upgrade of the board's own breaks it.
    made_of = [wanted, about.python, about.executable]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    asked = {"folder": folder, "key": key, "code": code, "requirements": wanted}
    reply = line.ask("the environment was made", "environment", **asked)
    return str(reply.get("python"))


def require_same_program(about: AboutBoard, line: Line) -> None:
    """Check that the Python which ``--python`` names has this program, and say when it is another version of it.

    Raises:
        BoardError: when it has none.
    """
    if about.fine_edge_sha256 is None:
        hint = "leave --python out, and an environment is made there"
        raise BoardError(f"{line.python} has no fine_edge", where=line.host, hint=hint)
    if about.fine_edge_sha256 != code_sha256(PACKAGE):
        console.warn(f"the fine_edge of {line.python} on the board is another version than the one here")


# Results of a command: where they may lie, and bringing them back, each whole or not at all.

# Endings of files that are brought back: engines, timing caches and ONNX files stay.
SUFFIXES = (".json", ".jsonl", ".png", ".html", ".csv", ".md", ".txt", ".log", *CODECS)
_BLOCK = 1 << 20  # bytes


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
        # The board names its results: it must not be able to write anything else on this machine.
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
        # Said when all of them are written here: the board forgets them only then.
        if "code" in reply:
            talk.write(b"taken\n")
            talk.reply()
    return code, [path for path, _, _, _ in listed]


def _take(talk: Conversation, path: Path, name: str, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    # Under its name once its hash is right: a result that broke off never replaces an older one.
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
    # No file's name holds a NUL, so no word of the command can take the place of a file.
    whole = files.sha256_of_hashes({**sent, **{f"{number}\0": word for number, word in enumerate(argv)}})
    return whole[:16]
