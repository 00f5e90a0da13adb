"""INT8 against FP16 on boards: pairs of latencies that others published, and whether the estimate has their sign.

A pair is one network on one board in one power mode, timed in both precisions by one author, whose engine TensorRT
quantised by itself as far as is told. Two estimates stand beside it: of such an engine, by constants that were fitted
without this network; and that of ``fine-edge quantize``, the network with Q/DQ around all its candidate convolutions.
Scales do not change kernels, so no picture is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from fine_edge.errors import ConfigError
from fine_edge.estimate.calibration import find_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.latency import Conditions
from fine_edge.estimate.published import PublishedRow, published_rows
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.view import GraphView
from fine_edge.int8.compiled import costs
from fine_edge.int8.pairs import raised, with_pairs
from fine_edge.int8.placement import convolutions
from fine_edge.samples import median
from fine_edge.table import Column, Table


@dataclass(frozen=True)
class MeasuredPair:
    """One network on one board, timed by one author in FP16 and in INT8.

    Attributes:
        network: its name among the published ones, without the precision.
        device: name of the board.
        mode: power mode.
        mode_known: whether the author tells the mode; it is assumed otherwise.
        cuda_graph: whether a CUDA graph held the kernels.
        source: who published it.
        fp16_ms: measured time of the kernels, or of a call.
        int8_ms: the same in INT8.
        rows: names of the two published rows, FP16 first.
    """

    network: str
    device: str
    mode: str
    mode_known: bool
    cuda_graph: bool
    source: str
    fp16_ms: float
    int8_ms: float
    rows: tuple[str, str]

    @property
    def ratio(self) -> float:
        """Return the time in INT8 over that in FP16; below 1 INT8 is faster."""
        return self.int8_ms / self.fp16_ms

    def left_out_ratio(self) -> float:
        """Return the estimated ratio of engines that TensorRT quantises itself, by constants of all other models."""
        errors = find_calibration(find_device(self.device)).left_out
        fp16, int8 = (1 + errors[row] for row in self.rows)
        return self.ratio * int8 / fp16

    def conditions(self) -> Conditions:
        """Return the board, as an estimate takes it."""
        device = find_device(self.device)
        return Conditions(device, device.mode(self.mode), find_calibration(device), "fp16", self.cuda_graph)


def measured_pairs(rows: Sequence[PublishedRow] | None = None) -> tuple[MeasuredPair, ...]:
    """Return the published latencies that are alike in everything but FP16 and INT8, in their order.

    Raises:
        ConfigError: when there is none.
    """
    timed = {(*_place(row), row.precision): row for row in (published_rows() if rows is None else rows)}
    pairs = tuple(
        MeasuredPair(
            row.graph.removesuffix(", FP16"),
            row.device,
            row.mode,
            row.mode_known,
            row.cuda_graph,
            row.source,
            half.compute_ms,
            row.compute_ms,
            (half.name, row.name),
        )
        for row in timed.values()
        if row.precision == "int8" and (half := timed.get((*_place(row), "fp16")))
    )
    if not pairs:
        raise ConfigError("no network was timed in FP16 and in INT8", hint="install fine_edge again")
    return pairs


def _place(row: PublishedRow) -> tuple[str, str, str, bool, str]:
    return row.graph, row.device, row.mode, row.cuda_graph, row.source


@dataclass(frozen=True)
class PairEstimate:
    """A measured pair beside its estimate.

    Attributes:
        pair: what was measured.
        convolutions: number of convolutions in INT8.
        kernels_fp16, kernels_int8: as TensorRT-RTX compiles them for SM86.
        fused_kernels: kernels if every INT8 convolution and what follows it were one, as on boards.
        fp16_ms: estimated latency in FP16.
        int8_ms: estimated latency of the fused kernels.
        int8_as_compiled_ms: estimated latency of TensorRT-RTX's.
    """

    pair: MeasuredPair
    convolutions: int
    kernels_fp16: int
    kernels_int8: int
    fused_kernels: int
    fp16_ms: float
    int8_ms: float
    int8_as_compiled_ms: float

    @property
    def ratio(self) -> float:
        """Return the estimated time in INT8 over that in FP16."""
        return self.int8_ms / self.fp16_ms

    @property
    def agrees(self) -> bool:
        """Return whether the estimate of an engine quantised by TensorRT, as the board's, has the board's sign."""
        return (self.pair.left_out_ratio() < 1) == (self.pair.ratio < 1)

    @property
    def agrees_with_pairs(self) -> bool:
        """Return the same of the graph with Q/DQ, a convolution and what follows it in one kernel."""
        return (self.ratio < 1) == (self.pair.ratio < 1)

    @property
    def agrees_as_compiled(self) -> bool:
        """Return the same of TensorRT-RTX's kernels, two for each convolution."""
        return (self.int8_as_compiled_ms < self.fp16_ms) == (self.pair.ratio < 1)

    def to_json(self) -> dict[str, Any]:
        """Return the row of the record."""
        found = asdict(self)
        pair = {key: value for key, value in found.pop("pair").items() if key != "rows"}
        return {
            **pair,
            **{f"estimate_{key}" if key.endswith("_ms") else key: value for key, value in found.items()},
            "ratio": self.pair.ratio,
            "left_out_ratio": self.pair.left_out_ratio(),
            "estimate_ratio": self.ratio,
            "agrees": self.agrees,
            "agrees_with_pairs": self.agrees_with_pairs,
            "agrees_as_compiled": self.agrees_as_compiled,
        }


def estimate_pairs(network: onnx.ModelProto, pairs: Sequence[MeasuredPair]) -> list[PairEstimate]:
    """Compile a network in FP16 and in INT8 and estimate it under the conditions of each pair.

    Args:
        network: the FP32 graph; every node has a name.
        pairs: of this network.

    Raises:
        ArtifactError: when the graph cannot take INT8.
        MissingExtraError: without TensorRT-RTX.
        BackendError: when the compiler refuses a graph.
    """
    view = GraphView(network)
    chosen = convolutions(view)
    half = raised(to_fp16(view, keep_fp32=kept_by_exporter(network)))
    int8 = with_pairs(half, chosen, {one.activation: 1.0 for one in chosen}, view)
    boards = [pair.conditions() for pair in pairs]
    compiled = zip(pairs, costs(half, boards, "fp16.onnx"), costs(int8, boards, "int8.onnx"), strict=True)
    return [
        PairEstimate(
            pair,
            len(chosen),
            in_fp16.kernels,
            in_int8.kernels,
            in_int8.fused_kernels,
            in_fp16.estimate_ms,
            in_int8.fused_estimate_ms,
            in_int8.estimate_ms,
        )
        for pair, in_fp16, in_int8 in compiled
    ]


def pairs_table(rows: Sequence[PairEstimate]) -> Table:
    """Return one row for each pair: the ratio on the board, and the three estimates of it."""
    titles = ["FP16 ms", "INT8 ms", "Ratio", "TensorRT's", "Q/DQ", "As compiled"]
    table = Table(
        "INT8 over FP16: on boards, and ESTIMATED",
        [Column("Network", numeric=False), Column("Board", numeric=False), *map(Column, titles)],
    )
    for row in rows:
        pair = row.pair
        graph = "" if pair.cuda_graph else ", no graph"
        ratios = (pair.ratio, pair.left_out_ratio(), row.ratio, row.int8_as_compiled_ms / row.fp16_ms)
        times = (f"{pair.fp16_ms:.2f}", f"{pair.int8_ms:.2f}")
        board = f"{pair.device} {pair.mode}{graph}"
        table.add(pair.network, board, *times, *(f"{ratio:.2f}" for ratio in ratios))
    slower = sum(row.pair.ratio >= 1 for row in rows)
    by_tensorrt = sum(row.agrees for row in rows)
    with_qdq = sum(row.agrees_with_pairs for row in rows)
    as_compiled = sum(row.agrees_as_compiled for row in rows)
    table.notes = [
        f"Of {len(rows)} pairs the estimate has the sign of {by_tensorrt} where TensorRT quantises by itself, as on the"
        f" boards, by constants fitted without the network; with Q/DQ of {with_qdq}, of {as_compiled} by the kernels as"
        f" compiled here. INT8 is slower on the board in {slower}.",
        "Estimated over measured ratio, median:"
        f" {median([row.pair.left_out_ratio() / row.pair.ratio for row in rows]):.2f}, with Q/DQ"
        f" {median([row.ratio / row.pair.ratio for row in rows]):.2f}.",
    ]
    return table
