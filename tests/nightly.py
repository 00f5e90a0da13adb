"""Slow tests run where what they speak of has changed since they last passed, and whenever they are asked for.

What a test speaks of is the code that its file imports, directly or not, and the libraries which that code imports.
``make nightly`` runs the tests marked ``slow`` and writes what they passed with into ``nightly.json``. A run of the
whole suite leaves those of a file out only as long as all of that is still the same: an older result is never taken for
a new one, the tests run instead.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "nightly.json"


@dataclass(frozen=True)
class Nightly:
    """The last run of the slow tests.

    Attributes:
        date: the day, in UTC.
        python: major and minor version.
        machine: architecture of the processor.
        tests: what else than its imports each file of slow tests reads, as patterns of paths from the root.
        sources: digest of each file that they speak of, by path from the root.
        libraries: name on PyPI and version of each library that they speak of, by what it is imported as.
    """

    date: str
    python: str
    machine: str
    tests: dict[str, list[str]]
    sources: dict[str, str]
    libraries: dict[str, str]

    def write(self, path: Path = RECORD) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path = RECORD) -> Nightly | None:
    """Return the record, or None where there is none: then all slow tests run."""
    return Nightly(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


@dataclass(frozen=True)
class Source:
    """One file: a digest of what it says to Python, and what it imports."""

    digest: str
    modules: tuple[Path, ...]
    libraries: frozenset[str]


@functools.cache
def source(path: Path) -> Source:
    """Read a file. Comments, docstrings and layout are no part of the digest of a Python file."""
    data = path.read_bytes()
    if path.suffix != ".py":
        return Source(sha256(data).hexdigest()[:16], (), frozenset())
    tree = ast.parse(data)
    modules, libraries = set[Path](), set[str]()
    for name in _named(tree):
        found = list(_files(name, path))
        modules.update(found)
        if not found:
            libraries.add(name.partition(".")[0])
    if path.is_relative_to(ROOT / "fine_edge"):
        modules.update(_data(path.parent))
        if b"import_module(" in data:
            # What is imported by a name that is made up while it runs lies beside the file or below it.
            modules.update(path.parent.rglob("*.py"))
    return Source(_digest(tree), tuple(sorted(modules - {path})), frozenset(libraries - set(sys.stdlib_module_names)))


def _data(folder: Path) -> Iterator[Path]:
    """Yield the files of a package that are no Python, which its code may read."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__" and not (entry / "__init__.py").exists():
            yield from _data(entry)
        elif entry.is_file() and entry.suffix != ".py":
            yield entry


def _digest(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _named(tree: ast.Module) -> Iterator[str]:
    """Yield the names of what may be modules: of imports, and of strings, which processes are started with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith("fine_edge."):
                yield node.value
            elif "import fine_edge" in node.value or "from fine_edge" in node.value:  # a program
                with contextlib.suppress(SyntaxError):
                    yield from _named(ast.parse(node.value))


def _files(name: str, importer: Path) -> Iterator[Path]:
    """Yield the files of a module of ours, with its packages' faces; of tests, those beside the importer come first."""
    if name.partition(".")[0] == "fine_edge":
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            place = ROOT.joinpath(*parts[:count])
            yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())
    else:
        places = (importer.parent, ROOT / "tests")
        yield from [file for place in places if (file := place / f"{name}.py").is_file()][:1]


def subject(test: Path, reads: Iterable[str] = ()) -> tuple[frozenset[Path], frozenset[str]]:
    """Return all files and libraries that a file of tests speaks of.

    Args:
        test: the file.
        reads: what else it reads, by patterns of paths from the root.
    """
    read = (file for pattern in reads for file in ROOT.glob(pattern) if "__pycache__" not in file.parts)
    waiting = [test, *filter(Path.is_file, read)]
    waiting += [file for folder in test.parents if (file := folder / "conftest.py").is_file()]
    files, libraries = set[Path](), set[str]()
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            waiting += source(file).modules
            libraries |= source(file).libraries
    return frozenset(files), frozenset(libraries)


@functools.cache
def versions() -> dict[str, str]:
    """Return ``name==version`` of all installed libraries by what they are imported as, several joined by blanks."""
    found = {}
    for module, names in importlib.metadata.packages_distributions().items():
        found[module] = " ".join(f"{name}=={importlib.metadata.version(name)}" for name in sorted(set(names)))
    return found


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def record_of(tests: dict[Path, list[str]], date: str) -> Nightly:
    """Return the record of a run in which the slow tests of these files have passed; each with what else it reads."""
    sources, libraries = dict[str, str](), dict[str, str]()
    for test, reads in tests.items():
        files, modules = subject(test, reads)
        sources |= {_relative(file): source(file).digest for file in files}
        libraries |= {module: versions()[module] for module in modules if module in versions()}
    patterns = {_relative(test): reads for test, reads in tests.items()}
    return Nightly(date, _python(), platform.machine(), patterns, sources, libraries)


def unchanged(record: Nightly) -> tuple[list[Path], str]:
    """Return the files of slow tests that need not run, and the first reason why another one has to."""
    here = (_python(), platform.machine())
    if here != (record.python, record.machine):
        return [], f"they passed on Python {record.python} and {record.machine}"
    left_out, reason = [], ""
    for name, reads in record.tests.items():
        change = _change(record, ROOT / name, reads)
        if change is None:
            left_out.append(ROOT / name)
        reason = reason or change or ""
    return left_out, reason


def _change(record: Nightly, test: Path, reads: Iterable[str]) -> str | None:
    if not test.is_file():
        return None
    files, modules = subject(test, reads)
    for file in sorted(files):
        if record.sources.get(_relative(file)) != source(file).digest:
            return f"{_relative(file)} is another"
    for module in sorted(modules & versions().keys()):
        if record.libraries.get(module) != versions()[module]:
            return f"{versions()[module]} was {record.libraries.get(module, 'not there')}"
    return None
