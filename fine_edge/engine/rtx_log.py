"""Parsing of the VERBOSE log of a TensorRT build.

With detailed profiling verbosity the compiler prints one line per kernel under ``Layers:``: its name, the tensors that
it reads and writes, and the ONNX nodes that it came from.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from fine_edge.errors import BackendError
from fine_edge.machine import MIB

# Layer lists name more than kernels: points where streams wait for each other, views of a tensor in another shape or
# layout (NoOp), shapes that the host computes (shape_call) and constants that lie in memory.
_NO_KERNEL = frozenset({"signal", "wait", "noop", "shape_call", "constant"})
# An engine of several optimisation profiles lists its layers once for each. The first profile's names have no suffix.
_PROFILE = re.compile(r" \[profile +(\d{1,4})\]")
_KERNEL = re.compile(r"^\s*Name: (?P<name>.+?), LayerType: (?P<kind>[^,]+), ")
# Between entries is nothing, or a unit or record separator. A name may hold brackets, and the compiler may append what
# it turned the node into (``]__gemm_from_conv1x1``).
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=(?:__\w+)?(?:[\x1e\x1f\[]|\s*$))")
_TENSOR = re.compile(r"{ Name: (?P<name>.*?), Dimensions: \[(?P<dims>[\d,]*)\](?:[^}]*?Datatype: (?P<type>\w+))?[^}]*}")
# Words for data types and formats in the compiler's log and in the engine inspector's JSON. The first match counts, so
# that "BFloat16" is not read as "Float".
_ELEMENT_BYTES = {
    **dict.fromkeys(("bfloat16", "bf16", "half", "fp16", "float16", "int16"), 2),
    **dict.fromkeys(("int64", "double", "fp64"), 8),
    **dict.fromkeys(("int32", "float", "fp32"), 4),
    **dict.fromkeys(("int8", "fp8", "bool"), 1),
}
# The parser's summary of the node that it refuses.
_REFUSED = re.compile(r"\[E\] In node \d+ with name: (?P<node>.*?) and operator: (?P<kind>\S+) \(\w+\): (?P<reason>.+)")
_ERROR = re.compile(r"^\s*\[E\] (?:\[\S+::\d+\] )?(?P<reason>.+)", re.MULTILINE)
# Lines that explain nothing: a place in NVIDIA's source, and errors that every machine without a GPU logs.
_EMPTY_REASONS = ("ModelImporter.cpp", "cudaError 35", "Cuda Error", "CUDA driver version")
_SOURCE_PLACE = re.compile(r"\.? In \w+ at /_src/[^ )]+")


@dataclass(frozen=True)
class Kernel:
    """One kernel of an engine.

    Attributes:
        name: the name of the kernel.
        kind: the compiler's layer type, such as ``kgen`` or ``gemm``.
        onnx_nodes: names of the ONNX nodes that it came from.
        reads: name and bytes of each activation that it reads.
        writes: name and bytes of each activation that it writes.
        constants: name and bytes of each constant that it reads; kernels can share one.
    """

    name: str
    kind: str
    onnx_nodes: tuple[str, ...]
    reads: tuple[tuple[str, int], ...] = ()
    writes: tuple[tuple[str, int], ...] = ()
    constants: tuple[tuple[str, int], ...] = ()

    @property
    def read_bytes(self) -> int:
        """Bytes of all activations that it reads."""
        return sum(size for _, size in self.reads)

    @property
    def written_bytes(self) -> int:
        """Bytes of all activations that it writes."""
        return sum(size for _, size in self.writes)

    @property
    def is_fused_attention(self) -> bool:
        """Whether it computes all of softmax(Q K^T) V.

        The remark "part of self-attention pattern" elsewhere in the log is no proof: the compiler prints it for
        attentions that it does not fuse, too.
        """
        return self.name.startswith("_gemm_mha_v2") and any("softmax" in node.lower() for node in self.onnx_nodes)


@dataclass(frozen=True)
class Compiled:
    """The kernels of one engine and its memory as the compiler plans it, from the log."""

    kernels: tuple[Kernel, ...]
    activation_bytes: int
    weights_bytes: int

    @property
    def fused_attention(self) -> int:
        """Number of fused attentions."""
        return sum(kernel.is_fused_attention for kernel in self.kernels)

    @property
    def activation_mib(self) -> float:
        """Memory for activations, MiB."""
        return self.activation_bytes / MIB

    @property
    def weights_mib(self) -> float:
        """Memory for weights, MiB."""
        return self.weights_bytes / MIB


def parse_log(text: str) -> Compiled:
    """Return kernels and memory from the log of a successful build; the last one when the log holds several.

    Raises:
        BackendError: when the log lacks the ``Layers:`` section or the memory totals.
    """
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if line.rpartition("] ")[2].strip() == "Layers:"]
    if not starts:
        raise BackendError(
            "the compiler's log has no 'Layers:' section",
            hint='build with detailed profiling verbosity: leave "profiling_verbosity" out of the recipe',
        )
    kernels = []
    for line in lines[starts[-1] + 1 :]:
        match = _KERNEL.match(line)
        if match is None:
            break
        kernels.append(_kernel(match["name"], match["kind"], line))
    return Compiled(
        tuple(kernel for kernel in kernels if launches_kernel(kernel.kind)),
        _total(text, "Total Activation Memory"),
        _total(text, "Total Weights Memory"),
    )


def launches_kernel(kind: str) -> bool:
    """Return whether a layer of this type runs on the GPU; all kernel counts rest on this.

    Args:
        kind: ``LayerType`` of TensorRT's layer lists, in its log or in the engine inspector's JSON.
    """
    return kind.lower() not in _NO_KERNEL


def profile_of(name: str) -> int:
    """Return the optimisation profile that a layer, binding or time belongs to, from its name; 0 is the first."""
    found = _PROFILE.search(name)
    return int(found[1]) if found else 0


def without_profile(name: str) -> str:
    """Return the name of a layer or binding without the mark of its optimisation profile."""
    return _PROFILE.sub("", name)


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Return the ONNX nodes in a layer's metadata, ``[ONNX Layer: /a/Conv][ONNX Layer: /a/Relu]``."""
    return tuple(_NODE.findall(metadata))


def _kernel(name: str, kind: str, line: str) -> Kernel:
    rest, _, metadata = line.rpartition(", Metadata: ")
    rest, _, outputs = rest.partition(", Outputs: [")
    inputs, _, constants = rest.partition(", Constants: [")
    return Kernel(
        name,
        kind,
        onnx_nodes(metadata),
        reads=tuple(_tensors(inputs)),
        writes=tuple(_tensors(outputs)),
        constants=tuple(_tensors(constants)),
    )


def _tensors(text: str) -> list[tuple[str, int]]:
    """Return name and bytes of each tensor in one list of the log; 0 bytes where the log gives no data type."""
    found = []
    for match in _TENSOR.finditer(text):
        count = math.prod(int(dim) for dim in match["dims"].split(",") if dim)
        found.append((match["name"], count * (element_bytes(match["type"] or "") or 0)))
    return found


def element_bytes(text: str) -> int | None:
    """Return the bytes of one element of a data type or format in TensorRT's words; ``None`` for unknown words."""
    lower = text.lower()
    return next((size for word, size in _ELEMENT_BYTES.items() if word in lower), None)


def _total(text: str, title: str) -> int:
    found = re.findall(rf"{title}: (\d+) bytes", text)
    if not found:
        what = f"the compiler's log has no line '{title}'"
        raise BackendError(what, hint="install the tensorrt-rtx that fine-edge was tested with: 'fine-edge[rtx]'")
    return int(found[-1])


def first_error(text: str) -> str:
    """Return the log's first error that explains why a build failed, after the node if the parser names one.

    The text is empty when the log holds no error.
    """
    refused = _REFUSED.search(text)
    errors = [match["reason"] for match in _ERROR.finditer(text)]
    reasons = [reason for reason in errors if not any(phrase in reason for phrase in _EMPTY_REASONS)]
    if not reasons:
        return str(errors[0]) if errors else ""
    if refused is None:
        return str(_SOURCE_PLACE.sub("", reasons[0]))
    # When no error comes before the summary, the summary's own reason is the first.
    reason = refused["reason"] if reasons[0] in refused.group() else reasons[0]
    return f"{refused['node'] or 'a node without a name'} ({refused['kind']}): {_SOURCE_PLACE.sub('', reason)}"


def kernels_in(text: str) -> tuple[Kernel, ...] | None:
    """Return the kernels of an engine's layer description in order; ``None`` when it holds only names, or nothing.

    Of an engine with several optimisation profiles these are the first profile's.

    ``Layers`` holds objects with ``Name``, ``LayerType`` and ``Metadata`` for engines with detailed profiling
    verbosity, and plain names otherwise.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    listed = map(_described_kernel, layers)
    return tuple(kernel for kernel in listed if launches_kernel(kernel.kind) and profile_of(kernel.name) == 0)


def _described_kernel(layer: dict[str, Any]) -> Kernel:
    return Kernel(str(layer.get("Name")), str(layer.get("LayerType")), onnx_nodes(str(layer.get("Metadata", ""))))
