"""Layers point one way: the device side never sees torch, and the package itself imports nothing heavy."""

import fnmatch
import subprocess
import sys
from pathlib import Path

from host_side import host_patterns, is_host_side

import fine_edge

ROOT = Path(fine_edge.__file__).parent
HEAVY = ("torch", "transformers", "fvcore", "safetensors", "torchvision", "ultralytics", "onnxscript")
LAZY = ("onnxruntime", "matplotlib", "skimage", "tensorrt", "tensorrt_rtx", "polygraphy", "pycuda", "cv2")

IMPORT_BLOCKED = """
import importlib, sys
for name in {blocked}:
    sys.modules[name] = None
failed = []
for name in {modules}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{{name}}: {{error}}")
print("\\n".join(failed))
"""


def modules():
    found = set()
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        # Importing a __main__ runs nothing: the command stands behind the usual guard.
        found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def device_side():
    return sorted(name for name in modules() if not is_host_side(name))


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_every_pattern_of_the_list_of_host_side_modules_finds_one():
    for pattern in host_patterns():
        assert any(fnmatch.fnmatch(name, pattern) for name in modules()), pattern


def test_everything_else_imports_without_torch_and_without_any_backend():
    assert len(device_side()) > 25
    done = python(IMPORT_BLOCKED.format(blocked=HEAVY + LAZY, modules=device_side()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_package_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import fine_edge; print(*sorted(set(sys.modules) - before))"
    assert python(code).stdout.split() == ["fine_edge"]


def test_commands_say_which_extra_is_missing():
    code = (
        "import sys\nfor name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "sys.argv[1:] = ['zoo']\nfrom fine_edge.cli.program import run\nrun()"
    )
    done = python(code)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: this needs torch -> pip install 'fine-edge[export]'"
