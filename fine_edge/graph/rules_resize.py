"""The rule on Resize and Upsample: the ways of interpolation that TensorRT's parser imports."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from fine_edge.graph.limits_layers import Limit
from fine_edge.graph.view import Finding, GraphView, attribute_int, attribute_ints, attribute_text, input_name, label

_COORDINATES = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn")
_WIDEST = {"linear": 3, "bilinear": 3, "cubic": 2}
"""Innermost dimensions that a mode can resize by scales."""

_PLAIN = "interpolate nearest or linear, with half_pixel, asymmetric or align_corners"


def resize_mode(graph: GraphView) -> list[Finding]:
    """FE13: Resize without antialiasing, by a mode, coordinates and axes that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``, the importer and checker of Resize: nearest and linear are
    documented, cubic is imported as well; the parser says "Antialiasing is not supported".
    Hint: nearest or linear, ``antialias=False``.
    """
    found = []
    for node in graph.nodes:
        limits = {"Resize": _resize, "Upsample": _upsample}.get(node.op_type)
        for limit in limits(graph, node) if limits else ():
            message = f"{node.op_type} {limit.message}"
            found.append(Finding("FE13", limit.severity, label(node), message, limit.hint))
    return found


def _resize(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if attribute_int(node, "antialias", 0):
        yield Limit("with antialiasing is refused", "interpolate with antialias=False")
    policy = attribute_text(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        yield Limit(f"with keep_aspect_ratio_policy {policy!r} is refused", "name both sizes: stretch")
    mode = attribute_text(node, "mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        yield Limit(f"with mode {mode!r} is refused", _PLAIN)
    if mode == "cubic":
        hint = "use nearest or linear, or build it on the device before relying on it"
        yield Limit("with mode 'cubic' is imported, and not in the parser's published table", hint, "warning")
    if graph.opset >= 11:
        yield from _coordinates(node)
    yield from _axes(graph, node)
    yield from _scales(graph, node, input_name(node, 2 if graph.opset >= 11 else 1), mode)


def _coordinates(node: NodeProto) -> Iterator[Limit]:
    coordinates = attribute_text(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute_text(node, "nearest_mode", "round_prefer_floor")
    if coordinates not in _COORDINATES:
        yield Limit(f"with coordinates {coordinates!r} is refused", _PLAIN)
    if coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        yield Limit(f"with tf_half_pixel_for_nn and nearest_mode {nearest!r} is refused", _PLAIN)
    if coordinates == "tf_half_pixel_for_nn" and input_name(node, 3):
        yield Limit("with tf_half_pixel_for_nn takes scales, not sizes", "name scales, or use half_pixel")


def _axes(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    rank, axes = graph.rank(input_name(node, 0)), attribute_ints(node, "axes")
    if rank is None:
        return
    if rank == 0:
        yield Limit("of a scalar is refused", "resize a map")
    normal = [axis + rank if axis < 0 else axis for axis in axes]
    if len(set(normal)) < len(normal):
        yield Limit("with the same axis twice is refused", "name each axis once")
    scales = input_name(node, 2)
    if axes and normal != list(range(rank)) and scales and not input_name(node, 3) and not graph.is_weights(scales):
        yield Limit("with axes and computed scales is refused", "store the scales as a constant")


def _upsample(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    mode = attribute_text(node, "mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        yield Limit(f"with mode {mode!r} is refused", "use nearest or linear")
    if graph.opset >= 9:
        yield from _scales(graph, node, input_name(node, 1), mode)


def _scales(graph: GraphView, node: NodeProto, name: str, mode: str) -> Iterator[Limit]:
    scales, rank = graph.constant(name), graph.rank(input_name(node, 0))
    if name and not graph.is_constant(name):
        yield Limit("by scales from the network's input is refused", "name the sizes, or export with a fixed factor")
    if scales is None or scales.dtype.kind != "f" or not scales.size or input_name(node, 3):
        return
    if scales.ndim != 1:
        yield Limit(f"with scales of {scales.ndim} dimensions is refused", "store the scales as a vector")
        return
    axes = attribute_ints(node, "axes")
    if rank is not None and len(scales) != (len(axes) or rank):
        yield Limit(f"of {rank} dimensions with {len(scales)} scales is refused", "give one scale a dimension")
    elif rank is not None and mode in _WIDEST:
        normal = [axis + rank if axis < 0 else axis for axis in axes] or list(range(rank))
        outer = [scale for axis, scale in zip(normal, scales, strict=False) if axis < rank - _WIDEST[mode]]
        if any(float(scale) != 1.0 for scale in outer):
            yield Limit(
                f"{mode} over more than {_WIDEST[mode]} dimensions is refused", "resize the innermost ones only"
            )
