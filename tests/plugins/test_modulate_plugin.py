"""The plugin class as a whole: it compiles against TensorRT 10.7's interface, typed again by hand, and computes.

This is not NVIDIA's header, and no GPU takes part: host loops stand in for the launch. What NVIDIA's own library makes
of the class is in ``test_plugin_registry.py``.
"""

from __future__ import annotations

import ctypes
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from modulate_build import (
    HERE,
    NCHW,
    NHWC,
    NHWC8,
    SOURCES,
    load,
    load_reference,
    pointer,
    shared_library,
    stored,
    unstored,
)

reference = load_reference()
FLOAT, HALF, INT8 = range(3)  # nvinfer1::DataType
LINEAR, CHW2, HWC8, CHW4, HWC = 0, 1, 2, 3, 8  # nvinfer1::TensorFormat
INT32 = 5  # nvinfer1::PluginFieldType
TAKEN = {(HALF, LINEAR): NCHW, (FLOAT, LINEAR): NCHW, (HALF, HWC8): NHWC8, (FLOAT, HWC): NHWC}


@pytest.fixture(scope="module")
def plugin_library():
    sources = [SOURCES / "fine_modulate_plugin.cpp", HERE / "host_modulate.cpp", HERE / "host_plugin.cpp"]
    with tempfile.TemporaryDirectory() as folder:
        library = load(shared_library(Path(folder) / "plugin.so", *sources))
        library.make.restype = library.reloaded.restype = ctypes.c_void_p
        library.creator_text.restype = library.metadata.restype = ctypes.c_char_p
        library.takes.restype = ctypes.c_bool
        yield library


@pytest.fixture
def made(plugin_library):
    """Plugins with a kernel, reloaded as an engine's context does, destroyed after the test."""
    plugins = []

    def make(kernel):
        first = plugin_library.make(b"kernel", kernel, INT32, 1)
        plugins.append(ctypes.c_void_p(plugin_library.reloaded(ctypes.c_void_p(first))))
        return plugins[-1]

    yield make
    for plugin in plugins:
        plugin_library.destroy(plugin)


def test_the_creator_says_what_the_exported_node_asks_for(plugin_library):
    assert [plugin_library.creator_text(i) for i in range(4)] == [b"FineModulate", b"1", b"", b"kernel"]


@pytest.mark.parametrize(
    ("name", "value", "kind", "length"),
    [
        (b"kernel", 0, INT32, 1),
        (b"kernel", -2, INT32, 1),
        (b"size", 4, INT32, 1),
        (b"kernel", 4, 1, 1),
        (b"kernel", 4, INT32, 2),
    ],
    ids=["zero", "negative", "another field", "another type", "a list"],
)
def test_no_plugin_without_a_positive_kernel(plugin_library, name, value, kind, length):
    assert plugin_library.make(name, value, kind, length) is None


def test_the_kernel_survives_serialisation_and_cloning(plugin_library, made):
    assert [plugin_library.metadata(made(kernel)) for kernel in (1, 4, 123456)] == [
        b"kernel=1",
        b"kernel=4",
        b"kernel=123456",
    ]


def test_formats(plugin_library, made):
    plugin = made(2)
    for kind, form in product((FLOAT, HALF, INT8), (LINEAR, CHW2, HWC8, CHW4, HWC)):
        types, formats = (ctypes.c_int * 3)(kind, kind, kind), (ctypes.c_int * 3)(form, form, form)
        for position in range(3):
            assert plugin_library.takes(plugin, position, types, formats) == ((kind, form) in TAKEN), (kind, form)


@pytest.mark.parametrize("position", [1, 2])
def test_all_three_tensors_have_one_type_and_format(plugin_library, made, position):
    plugin = made(2)
    types, formats = [HALF] * 3, [HWC8] * 3
    formats[position] = LINEAR
    assert not plugin_library.takes(plugin, position, (ctypes.c_int * 3)(*types), (ctypes.c_int * 3)(*formats))
    types[position] = FLOAT
    assert not plugin_library.takes(plugin, position, (ctypes.c_int * 3)(*types), (ctypes.c_int * 3)(*formats))


@pytest.mark.parametrize(("kind", "form"), TAKEN)
@pytest.mark.parametrize(("shape", "kernel"), [((1, 16, 8, 8), 2), ((2, 12, 9, 7), 4), ((1, 3, 5, 5), 1)], ids=str)
def test_enqueue_computes_the_reference(plugin_library, made, kind, form, shape, kernel):
    dtype, layout = (np.float16 if kind == HALF else np.float32), TAKEN[kind, form]
    rng = np.random.default_rng(0)
    batch, channels, height, width = shape
    low = rng.standard_normal(shape).astype(dtype)
    m = rng.standard_normal((batch, channels, -(-height // kernel), -(-width // kernel))).astype(dtype)
    f, tokens = stored(low, layout), stored(m, layout)
    out = np.empty_like(f)
    dims = [(ctypes.c_int64 * 4)(*array.shape) for array in (low, m)]
    status = plugin_library.run(made(kernel), *dims, kind, form, pointer(f), pointer(tokens), pointer(out))
    assert status == 0
    values, _ = unstored(out, layout, channels)
    np.testing.assert_array_max_ulp(np.ascontiguousarray(values), reference.modulate(low, m, kernel), maxulp=1)


@pytest.mark.parametrize("m_dims", [(1, 8, 2, 3), (1, 8, 3, 2), (1, 4, 3, 3), (2, 8, 3, 3)], ids=str)
def test_a_map_that_does_not_fit_is_refused_before_anything_is_read(plugin_library, made, m_dims):
    low, m = (ctypes.c_int64 * 4)(1, 8, 9, 9), (ctypes.c_int64 * 4)(*m_dims)
    assert plugin_library.run(made(4), low, m, HALF, LINEAR, None, None, None) != 0


def test_the_library_for_dynamic_loading_compiles_and_shows_its_entry_points(tmp_path):
    sources = [SOURCES / "fine_modulate_plugin.cpp", HERE / "host_modulate.cpp"]
    library = load(shared_library(tmp_path / "dynamic.so", *sources, flags=["-DFINE_MODULATE_DYNAMIC"]))
    count = ctypes.c_int32()
    library.getCreators.restype = ctypes.POINTER(ctypes.c_void_p)
    creators = library.getCreators(ctypes.byref(count))
    assert count.value == 1
    assert creators[0]
    library.setLoggerFinder(None)
