"""No device code uses what TensorRT 10.7, 10.16 or 11.4 lacks, and the fake has no other signatures than the real ones.

``tensorrt_10_7.json`` and the others were read from the real bindings by ``read_api.py``. Nothing here ran TensorRT.
"""

from __future__ import annotations

import ast
import enum
import inspect
import json
import re
from pathlib import Path

import pytest
from runners import fake_cuda, fake_tensorrt

import fine_edge
from fine_edge.engine import cuda

APIS = {
    release: json.loads((Path(__file__).parent / f"tensorrt_{release}.json").read_text(encoding="utf-8"))
    for release in ("10_7", "10_16", "11_4")
}
PACKAGE = Path(fine_edge.__file__).parent

# Which expressions of which file are TensorRT's objects. Every file that imports tensorrt must be here.
OBJECTS = {
    "engine/plan.py": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "inspector": "EngineInspector",
        "network": "INetworkDefinition",
        "layer": "ILayer",
        "layer.get_output(index)": "ITensor",
    },
    "runners/trt.py": {"context": "IExecutionContext", "self._engine.context": "IExecutionContext"},
    "runners/trt_engine.py": {
        "self._runtime": "Runtime",
        "engine": "ICudaEngine",
        "self.engine": "ICudaEngine",
        "self.context": "IExecutionContext",
        "context": "IExecutionContext",
    },
}
# Functions that only fp16-weak runs, which is refused on TensorRT 11 before anything is built.
WEAK = {"engine/plan.py": "keep_fp32"}

every_release = pytest.mark.parametrize("release", APIS)


def importing_files():
    """Files with ``import tensorrt``, and what they call the module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.name == "tensorrt"
        }
        if names:
            found[str(path.relative_to(PACKAGE))] = (tree, names)
    return found


FILES = importing_files()


def chain(node):
    """``["trt", "ILogger", "ERROR"]`` of ``trt.ILogger.ERROR``; ``None`` for other expressions."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        before = chain(node.value)
        return before and [*before, node.attr]
    return None


def nodes(file, release):
    """The nodes of a file's tree, without the functions that this release never runs."""
    tree, _ = FILES[file]
    left_out = WEAK.get(file) if release.startswith("11") else None
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [
            below for below in ast.iter_child_nodes(node) if getattr(below, "name", None) != left_out or not left_out
        ]


def missing(names, api):
    """The first of a chain of names below the module that a TensorRT does not have."""
    first, *rest = names
    if first not in api["names"] and first not in api["functions"]:
        return first
    if rest and first not in api["classes"]:
        return f"{first} (add it to read_api.py)"
    return next((name for name in rest[:1] if name not in api["classes"][first]), None)


def parameters(signature):
    """Names of the parameters of a signature of the JSON, without ``self``."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    names = re.findall(r"(?:^|, )(\w+)(?=:|,|=|$| =)", inside)
    return [name for name in names if name not in ("self", "this")]


def fewest(signature):
    """How many arguments a call must give."""
    return len(parameters(signature)) - signature.count(" = ")


def takes(signature, names):
    """Whether a function with these parameters can stand for one with this signature."""
    real = parameters(signature)
    return names == real[: len(names)] and len(names) >= fewest(signature)


def mine(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_signatures_are_read_as_they_stand():
    assert [api["version"] for api in APIS.values()] == ["10.7.0", "10.16.1.11", "11.4.0.106"]
    api, newer, newest = APIS.values()
    run = api["classes"]["IExecutionContext"]["execute_async_v3"][0]
    assert parameters(run) == ["stream_handle"]
    assert [parameters(text) for text in api["classes"]["Runtime"]["deserialize_cuda_engine"]] == [
        ["serialized_engine"],
        ["stream_reader"],
        ["stream_reader_v2"],
    ]
    assert parameters(api["functions"]["nptype"][0]) == ["trt_type"]
    assert api["classes"]["ICudaEngine"]["device_memory_size_v2"] == "property, read only"
    # What came later must not be there, and what went must be gone, or the checks below mean nothing.
    assert "tiling_optimization_level" not in api["classes"]["IBuilderConfig"]
    assert "IAttention" not in api["names"]
    assert "IAttention" in newer["names"]
    assert "FP16" in newer["classes"]["BuilderFlag"]
    assert "FP16" not in newest["classes"]["BuilderFlag"]
    assert "STRONGLY_TYPED" in newest["classes"]["NetworkDefinitionCreationFlag"]
    # fp16-weak needs them.
    assert not {"precision", "set_output_type"} & set(newest["classes"]["ILayer"])


@every_release
def test_what_polygraphy_sets_for_us_is_there(release):
    """What the keywords of ``settings`` and a strongly typed network come to."""
    classes = APIS[release]["classes"]
    assert {
        "builder_optimization_level",
        "profiling_verbosity",
        "progress_monitor",
        "max_aux_streams",
        "set_memory_pool_limit",
        "create_timing_cache",
        "set_timing_cache",
        "add_optimization_profile",
    } <= set(classes["IBuilderConfig"])
    assert {"build_serialized_network", "create_optimization_profile"} <= set(classes["Builder"])
    assert "parse_from_file" in classes["OnnxParser"]
    assert {"DETAILED", "LAYER_NAMES_ONLY", "NONE"} <= set(classes["ProfilingVerbosity"])


def test_every_file_that_imports_tensorrt_is_checked():
    assert set(FILES) == set(OBJECTS)


@every_release
@pytest.mark.parametrize("file", OBJECTS)
def test_the_modules_names_are_those_of_the_release(file, release):
    api, (_, modules) = APIS[release], FILES[file]
    found = list(nodes(file, release))
    chains = [names for node in found if isinstance(node, ast.Attribute) and (names := chain(node))]
    used = [names[1:] for names in chains if names[0] in modules]
    assert used
    assert [(names, wrong) for names in used if (wrong := missing(names, api))] == []
    imported = [
        alias.name
        for node in found
        if isinstance(node, ast.ImportFrom) and node.module == "tensorrt"
        for alias in node.names
    ]
    assert [name for name in imported if missing([name], api)] == []


@every_release
@pytest.mark.parametrize("file", OBJECTS)
def test_what_is_asked_of_tensorrts_objects_is_there(file, release):
    classes, seen = APIS[release]["classes"], set()
    for node in nodes(file, release):
        if isinstance(node, ast.Attribute) and (kind := OBJECTS[file].get(ast.unparse(node.value))):
            seen.add(ast.unparse(node.value))
            assert node.attr in classes[kind], f"{kind}.{node.attr} at line {node.lineno}"
            stored = isinstance(node.ctx, ast.Store)
            assert not (stored and classes[kind][node.attr] == "property, read only"), f"line {node.lineno}"
    assert seen == set(OBJECTS[file]) or (file in WEAK and release.startswith("11"))


@every_release
@pytest.mark.parametrize("file", OBJECTS)
def test_methods_are_called_with_as_many_arguments_as_they_have(file, release):
    for node in nodes(file, release):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if kind := OBJECTS[file].get(ast.unparse(node.func.value)):
            given = len(node.args) + len(node.keywords)
            signatures = APIS[release]["classes"][kind][node.func.attr]
            assert any(fewest(text) <= given <= len(parameters(text)) for text in signatures), f"line {node.lineno}"


@every_release
@pytest.mark.parametrize("file", OBJECTS)
def test_what_is_derived_from_tensorrts_classes_overrides_what_there_is(file, release):
    _, modules = FILES[file]
    for node in nodes(file, release):
        if not isinstance(node, ast.ClassDef):
            continue
        for names in filter(None, map(chain, node.bases)):
            if names[0] in modules:
                members = APIS[release]["classes"][names[1]]
                for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
                    taken = [argument.arg for argument in method.args.args[1:]]
                    assert taken in [parameters(text) for text in members[method.name]], method.name


FAKES = [
    (name, fake)
    for name, fake in vars(fake_tensorrt).items()
    if inspect.isclass(fake) and name in APIS["10_7"]["classes"] and fake.__module__ == fake_tensorrt.__name__
]


@every_release
@pytest.mark.parametrize(("name", "fake"), FAKES)
def test_the_fakes_classes_have_the_real_signatures(name, fake, release):
    real = APIS[release]["classes"][name]
    members = [member.name for member in fake] if issubclass(fake, enum.Enum) else list(vars(fake))
    for member in members:
        if member.startswith("_"):
            continue
        assert member in real
        value = vars(fake).get(member)
        if inspect.isfunction(value):
            assert any(takes(text, mine(value)) for text in real[member])
        elif isinstance(value, property):
            assert real[member].startswith("property")


@every_release
def test_the_fake_contexts_attributes_are_real_properties(release):
    source = ast.parse(inspect.getsource(fake_tensorrt.IExecutionContext.__init__).strip())
    stored = {
        node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }
    public = {name for name in stored if not name.startswith("_")}
    assert public == {"profiler", "enqueue_emits_profile", "nvtx_verbosity"}
    assert {APIS[release]["classes"]["IExecutionContext"][name] for name in public} == {"property"}


@every_release
@pytest.mark.parametrize("name", ["nptype", "init_libnvinfer_plugins"])
def test_the_fakes_functions_have_the_real_signatures(name, release):
    assert mine(getattr(fake_tensorrt, name)) == parameters(APIS[release]["functions"][name][0])


@pytest.mark.parametrize(("real", "fake"), [(cuda.Cuda, fake_cuda.FakeCuda), (cuda.Graph, fake_cuda.FakeGraph)])
def test_the_fake_cuda_has_the_signatures_of_ours(real, fake):
    methods = {name for name, value in vars(real).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert methods == {
        name for name, value in vars(fake).items() if inspect.isfunction(value) and not name.startswith("_")
    }
    for name in methods:
        theirs = inspect.signature(getattr(fake, name)).parameters.values()
        ours = inspect.signature(getattr(real, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in theirs] == [(p.name, p.kind, p.default) for p in ours]


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (cuda.DeviceMemory, fake_cuda.FakeMemory),
        (cuda.Stream, fake_cuda.FakeStream),
        (cuda.Event, fake_cuda.FakeEvent),
    ],
)
def test_the_fake_objects_have_the_signatures_of_ours(real, fake):
    for name, value in vars(real).items():
        if inspect.isfunction(value) and (name == "__int__" or not name.startswith("_")):
            assert mine(getattr(fake, name)) == mine(value)
