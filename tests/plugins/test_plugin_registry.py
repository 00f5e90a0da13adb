"""NVIDIA's own plugin registry loads the plugin and makes one: TensorRT-RTX has that of TensorRT 10, and its parser.

What TensorRT-RTX cannot do is build a network with a plugin, so it stops at the creator.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from modulate_build import HERE, SOURCES, shared_library

pytestmark = pytest.mark.host

# In a process of its own: a registry, once loaded, is the whole process's.
_SCRIPT = """
import sys
import numpy as np
import tensorrt_rtx as trt

registry = trt.get_plugin_registry()
before = {creator.name for creator in registry.all_creators}
registry.load_library(sys.argv[1])
creator, = [creator for creator in registry.all_creators if creator.name not in before]
print(type(creator).__name__, creator.name, creator.plugin_version, repr(creator.plugin_namespace))
print(*[(field.name, field.type.name, field.size) for field in creator.field_names])
assert registry.get_creator("FineModulate", "1", "").name == "FineModulate"

def make(kernel):
    field = trt.PluginField("kernel", np.array([kernel], np.int32), trt.PluginFieldType.INT32)
    return creator.create_plugin("node", trt.PluginFieldCollection([field]), trt.TensorRTPhase.BUILD)

plugin = make(4)
core, build, _ = [plugin.get_capability_interface(kind) for kind in (
    trt.PluginCapabilityType.CORE, trt.PluginCapabilityType.BUILD, trt.PluginCapabilityType.RUNTIME)]
print(core.plugin_name, core.plugin_version, repr(core.plugin_namespace))
print(build.num_outputs, build.timing_cache_id, build.metadata_string, build.format_combination_limit)
print(make(0))
"""


def test_the_registry_loads_the_library_and_reads_the_plugin(tmp_path):
    sources = [SOURCES / "fine_modulate_plugin.cpp", HERE / "host_modulate.cpp"]
    library = shared_library(tmp_path / "libfine_modulate_dynamic.so", *sources, flags=["-DFINE_MODULATE_DYNAMIC"])
    done = subprocess.run([sys.executable, "-c", _SCRIPT, library], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "IPluginCreatorV3One FineModulate 1 ''",
        "('kernel', 'INT32', 1)",
        "FineModulate 1 ''",
        "1 kernel=4 kernel=4 100",
        "None",
    ]
