"""Layers point one way: the device side never sees torch, and the package itself imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import fine_edge

ROOT = Path(fine_edge.__file__).parent
# All modules, and packages with what is in them, that may import torch while they are imported. Whatever is not here
# must work on a machine without it.
HOST_SIDE = {
    "fine_edge.export.exporter",
    "fine_edge.export.lowering",
    "fine_edge.export.plain",
    "fine_edge.export.trace",
    "fine_edge.fusion",
    "fine_edge.postprocess",
    "fine_edge.runners.eager",
    "fine_edge.train.losses",
    "fine_edge.train.pictures",
    "fine_edge.train.resumption",
    "fine_edge.train.run",
    "fine_edge.train.start",
    "fine_edge.train.statistics",
    "fine_edge.zoo.checkpoints",
    "fine_edge.zoo.count",
    "fine_edge.zoo.families",
    "fine_edge.zoo.family",
    "fine_edge.zoo.fit",
    "fine_edge.zoo.frozen_batch_norm",
    "fine_edge.zoo.inert",
    "fine_edge.zoo.inject",
    "fine_edge.zoo.load",
    "fine_edge.zoo.macs",
    "fine_edge.zoo.onnx_defaults",
    "fine_edge.zoo.random_weights",
    "fine_edge.zoo.rtdetr",
    "fine_edge.zoo.rtdetr_checkpoint",
    "fine_edge.zoo.segmentation",
    "fine_edge.zoo.tensors",
    "fine_edge.zoo.torchvision",
    "fine_edge.zoo.wrappers",
    "fine_edge.zoo.yolo",
}
HEAVY = ("torch", "transformers", "fvcore", "safetensors", "torchvision", "ultralytics", "onnxscript")
LAZY = ("onnxruntime", "matplotlib", "skimage", "tensorrt", "tensorrt_rtx", "polygraphy", "pycuda")

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
        if parts[-1] != "__main__":
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        else:  # importing it runs nothing: the command stands behind the usual guard
            found.add(".".join(parts))
    return found


def device_side():
    return sorted(
        name for name in modules() if not any(name == host or name.startswith(f"{host}.") for host in HOST_SIDE)
    )


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_the_list_of_host_side_modules_is_up_to_date():
    assert modules() >= HOST_SIDE


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
        "from fine_edge import command\nfrom fine_edge.zoo.__main__ import main\ncommand.run(main)"
    )
    done = python(code)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: this needs torch -> pip install 'fine-edge[export]'"
