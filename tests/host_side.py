"""What needs torch: the modules that pyproject.toml lets import it, and the tests that import such modules."""

from __future__ import annotations

import ast
import fnmatch
import functools
import itertools
import re
from pathlib import Path

TESTS = Path(__file__).parent
HEAVY = {"torch", "transformers", "torchvision", "safetensors", "ultralytics", "fvcore", "accelerate", "pycocotools"}


@functools.cache
def host_patterns() -> tuple[str, ...]:
    """Names of modules, as patterns, of which ruff lets torch stand at the top."""
    text = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    paths = re.findall(r'^"(fine_edge/[^"]+)" = \["TID253"\]', text, re.MULTILINE)
    return tuple(pattern.removesuffix(".py").replace("/", ".") for path in paths for pattern in _expanded(path))


def _expanded(path: str) -> list[str]:
    """``a/{b,c}/d`` as ``a/b/d`` and ``a/c/d``."""
    parts = [part.split(",") if index % 2 else [part] for index, part in enumerate(re.split(r"[{}]", path))]
    return ["".join(choice) for choice in itertools.product(*parts)]


def is_host_side(module: str) -> bool:
    """Whether a module of the package may import torch while it is imported; a package's folder counts as it does."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in host_patterns() for name in (module, f"{module}.__init__"))


def _imported(path: Path) -> set[str]:
    """Modules that a file names in imports at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


@functools.cache
def needs_torch(path: Path) -> bool:
    """Whether a file of tests imports torch, or what imports it, by itself or through a helper beside it."""
    for name in _imported(path):
        if name.split(".")[0] in HEAVY or is_host_side(name):
            return True
        helpers = [folder / f"{name.replace('.', '/')}.py" for folder in (path.parent, TESTS)]
        if any(needs_torch(helper) for helper in helpers if helper.is_file() and helper != path):
            return True
    conftest = path.with_name("conftest.py")
    return path.name.startswith("test_") and path.parent != TESTS and conftest.is_file() and needs_torch(conftest)
