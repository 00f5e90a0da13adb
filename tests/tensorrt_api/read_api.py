"""Write down what the real bindings of a TensorRT have: names and signatures, no prose.

    python tests/tensorrt_api/read_api.py FOLDER > tests/tensorrt_api/tensorrt_10_7.json

FOLDER is the unpacked wheel for the Python that runs this: ``tensorrt_cu12_bindings`` 10.7.0, or
``tensorrt_cu13_bindings`` 10.16.1.11 or 11.4.0.106. Its extension wants libnvinfer, libnvinfer_plugin and
libnvonnxparser of that major release: the real ones, or empty stand-ins on LD_LIBRARY_PATH that export the few symbols
it names, since nothing of them is called. The JSON is then read on every Python, with or without TensorRT.
"""

from __future__ import annotations

import ast
import enum
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# What the device code may use. Adding one here is adding it to the JSON.
CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IPluginRegistry",
    "IProfiler",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
)


def load_bindings(folder: Path) -> ModuleType:
    """The extension module, without the Python around it."""
    spec = importlib.util.spec_from_file_location("tensorrt", folder / "tensorrt_bindings" / "tensorrt.so")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def signatures(name: str, text: str) -> list[str]:
    """The lines of a docstring that pybind11 made of C++ signatures; several for an overloaded function."""
    lines = re.findall(rf"^(?:\d+\. )?({re.escape(name)}\(.*\) -> .*)$", text, re.MULTILINE)
    return [re.sub(r"<([\w.]+): \d+>", r"\1", line) for line in lines if "*args" not in line]


def describe(owner: Any) -> dict[str, Any]:
    """Members of a class: signatures of methods, the kind of everything else."""
    members: dict[str, Any] = {}
    for name in sorted(vars(owner)):
        value = vars(owner)[name]
        if name.startswith("__") and name not in ("__init__", "__len__", "__getitem__"):
            continue
        if isinstance(value, property):
            members[name] = "property" if value.fset else "property, read only"
        elif found := signatures(name, getattr(value, "__doc__", None) or ""):
            members[name] = found
        elif isinstance(value, type):
            members[name] = "class"
        else:
            members[name] = "value"
    return members


def functions_of_the_package(folder: Path) -> dict[str, list[str]]:
    """Functions that are written in Python around the extension, such as ``nptype``."""
    tree = ast.parse((folder / "tensorrt_bindings" / "__init__.py").read_text(encoding="utf-8"))
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {node.name: [f"{node.name}({ast.unparse(node.args)})"] for node in made}


def read_api(folder: Path) -> dict[str, Any]:
    """Everything that the JSON holds."""
    module = load_bindings(folder)
    functions = {
        name: signatures(name, getattr(module, name).__doc__ or "")
        for name in sorted(vars(module))
        if callable(getattr(module, name)) and not isinstance(getattr(module, name), (type, enum.EnumMeta))
    }
    version = re.search(r'__version__ = "(.*)"', (folder / "tensorrt_bindings" / "__init__.py").read_text("utf-8"))
    assert version is not None
    return {
        "version": version[1],
        "names": sorted([*(name for name in vars(module) if not name.startswith("_")), "__version__"]),
        "functions": functions | functions_of_the_package(folder),
        "classes": {name: describe(getattr(module, name)) for name in CLASSES},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_api(Path(sys.argv[1])), indent=1) + "\n")
