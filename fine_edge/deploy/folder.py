"""A folder that is handed over: its files, the list of them with their hashes, and the rules for replacing it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from fine_edge.deploy.deployable import Deployable
from fine_edge.errors import OutputError
from fine_edge.fields import FileName, Sha256, Text, from_data, to_data
from fine_edge.files import contents_checked, output_errors, read_document, sha256_of, written_folder
from fine_edge.text import printable

FORMAT = 1
LIST = "deploy.json"
Target = Literal["triton", "deepstream", "isaac-ros", "cpp"]

_FOREIGN = "choose another folder with --out, or move what is there"


@dataclass(frozen=True)
class ListedFile:
    """A file below the folder, by its path with ``/``, and its hash."""

    path: Text
    sha256: Sha256


@dataclass(frozen=True)
class Listing:
    """What ``deploy.json`` holds beside its settings.

    Attributes:
        target: what the folder is for.
        model: name of the model, which the folder bears.
        source_file: name of the file that was handed over.
        source_sha256: of that file and its weights.
        precision: it computes in.
        random_weights: whether its results are meaningless.
        notes: what differs from this program's own results.
        files: all others of the folder.
    """

    target: Target
    model: FileName
    source_file: Text
    source_sha256: Sha256
    precision: Text
    random_weights: bool
    notes: tuple[Text, ...]
    # The limit holds off a list that somebody else wrote; a deployment has a handful of files.
    files: Annotated[tuple[ListedFile, ...], Meta(max_length=2**16)]


@dataclass(frozen=True)
class Deployment:
    """The files for one target, not written yet.

    Attributes:
        target: what they are for.
        name: of the model, and of the folder below ``--out``.
        files: by path below the folder; bytes, or a file that is copied.
        settings: what a client needs, added to ``deploy.json``.
        notes: what differs from this program's own results.
    """

    target: Target
    name: str
    files: dict[str, bytes | Path]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()


def write(deployment: Deployment, source: Deployable, out: Path) -> tuple[Path, dict[str, Any]]:
    """Write a deployment to ``out/NAME``, whole or not at all; one that was written before is replaced.

    Returns:
        The folder, and what its ``deploy.json`` holds.

    Raises:
        OutputError: when it cannot be written, or holds files that this program did not write or that were changed.
    """
    folder = out / deployment.name
    _refuse_foreign(folder, deployment.target)
    hashes = {
        path: sha256_of(data) if isinstance(data, Path) else sha256(data).hexdigest()
        for path, data in deployment.files.items()
    }
    listing = Listing(
        target=deployment.target,
        model=deployment.name,
        source_file=printable(source.path.name),
        source_sha256=source.sha256,
        precision=source.precision,
        random_weights=source.contract.random_weights,
        notes=deployment.notes,
        files=tuple(ListedFile(path, digest) for path, digest in sorted(hashes.items())),
    )
    data = {"format": FORMAT, **to_data(listing), "settings": deployment.settings}
    # A server that starts on half of a new folder would run one graph by the settings of another.
    with written_folder(folder) as partial, output_errors(folder):
        for path, content in deployment.files.items():
            target = partial / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
        (partial / LIST).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return folder, data


def _refuse_foreign(folder: Path, target: Target) -> None:
    """Refuse to replace anything but an untouched folder of this program.

    Raises:
        OutputError: naming the file.
    """
    if not folder.exists():
        return
    with output_errors(folder):
        if not folder.is_dir():
            raise OutputError("is no folder", where=folder, hint=_FOREIGN)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    # A folder that somebody made for it may be filled.
    if not there:
        return
    if LIST not in there:
        raise OutputError("holds files that are not of fine-edge deploy", where=folder, hint=_FOREIGN)
    listing = read_listing(folder / LIST)
    # Replaced, it would hold nothing that its own server reads.
    if listing.target != target:
        raise OutputError(f"holds what is for {listing.target}", where=folder, hint=_FOREIGN)
    listed = {file.path: file.sha256 for file in listing.files}
    for name in sorted(there - {LIST}):
        if name not in listed:
            raise OutputError("is not of fine-edge deploy and would be lost", where=folder / name, hint=_FOREIGN)
        with output_errors(folder):
            # A configuration that somebody edited is work that would be lost.
            if sha256_of(folder / name) != listed[name]:
                raise OutputError("was changed and would be lost", where=folder / name, hint=_FOREIGN)


def read_listing(path: Path) -> Listing:
    """Read a ``deploy.json``.

    Raises:
        OutputError: when it is broken.
    """
    data = read_document(path, OutputError, title="list of files", format_=FORMAT, hint=_FOREIGN)
    with contents_checked(path, OutputError, title="list of files", hint=_FOREIGN):
        return from_data(Listing, data)


def settings_of(source: Deployable) -> dict[str, Any]:
    """Return what a client needs to feed a network and to read it, as ``deploy.json`` holds it.

    ``batches`` is there where the batch is open: the smallest, the optimum and the largest, which the shapes have.
    """
    contract = source.contract
    return {
        **({"batches": list(contract.batches)} if contract.batches else {}),
        "task": contract.task,
        "inputs": to_data(contract.inputs),
        "outputs": to_data(contract.outputs),
        "preprocessing": contract.preprocessing.to_json(),
        "labels": list(source.labels),
    }


def label_lines(source: Deployable) -> bytes:
    """Return the class names, one a line, in the order of their indices."""
    return "".join(f"{label}\n" for label in source.labels).encode()


def heading(source: Deployable, name: str, consumer: str) -> str:
    """Return the first lines of a README: for whom it is, and what it was made from."""
    weights = "The weights are random: results are meaningless.\n" if source.contract.random_weights else ""
    return f"""# {name} for {consumer}
Made from `{source.path.name}` ({source.precision}, sha256 {source.sha256}).
{weights}"""
