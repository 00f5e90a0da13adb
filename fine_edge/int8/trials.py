"""Trials: a graph with some of its convolutions in INT8, run on pictures, compiled, and compared with FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from fine_edge import console
from fine_edge.engine.platform import here
from fine_edge.errors import ConfigError
from fine_edge.estimate.latency import Conditions
from fine_edge.evaluate.boxes import evaluate_boxes
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.fp16.budget import Deviation, deviation, found_by
from fine_edge.fp16.network import Found, Network
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.emulate import emulated
from fine_edge.graph.identity import identity_of
from fine_edge.graph.view import GraphView
from fine_edge.int8.compiled import GraphCost, compiled
from fine_edge.int8.pairs import pair_count, raised, with_pairs
from fine_edge.int8.placement import Convolution
from fine_edge.parity.tolerance import TOLERANCES
from fine_edge.runners.opened import Opened
from fine_edge.runners.ort import OrtRunner

BLOCK_STEP = 2
"""Of the pictures that drift is measured on, each block alone runs on every second: blocks are only set in order."""


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures: the boxes, and the folder of their pictures."""

    data: CocoData
    images: Path


@dataclass(frozen=True)
class Trial:
    """A set of convolutions in INT8, and what they cost and lose.

    Attributes:
        title: name of the placement.
        chosen: the convolutions; none for the FP16 graph.
        pairs: number of tensors that are dequantised.
        drift: of what is found, against FP32.
        compiled: kernels, memory and estimate; ``None`` without NVIDIA's compiler.
    """

    title: str
    chosen: tuple[Convolution, ...]
    pairs: int
    drift: Deviation
    compiled: GraphCost | None

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of the detector that have a convolution in INT8, in the order of the graph."""
        return tuple(dict.fromkeys(one.block for one in self.chosen))

    def without(self, block: str) -> tuple[Convolution, ...]:
        """Return the convolutions outside of a block."""
        return tuple(one for one in self.chosen if one.block != block)


@dataclass
class Trials:
    """All trials of one network; equal sets of convolutions are run once.

    Attributes:
        network: the FP32 network.
        view: the view of its graph.
        magnitudes: largest magnitude by tensor.
        images: pictures that drift is measured on.
        board: that latencies are estimated for.
        labelled: labelled pictures, for AP.
    """

    network: Network
    view: GraphView
    magnitudes: Mapping[str, float]
    images: Sequence[Path]
    board: Conditions
    labelled: Labelled | None = None
    _done: dict[frozenset[str], Trial] = field(default_factory=dict)

    @cached_property
    def half(self) -> onnx.ModelProto:
        """The FP16 graph, of an opset that takes FP16 scales."""
        return raised(to_fp16(self.view, keep_fp32=kept_by_exporter(self.network.model)))

    @cached_property
    def reference(self) -> list[Found]:
        """What the FP32 graph finds, in its own opset."""
        return self._found("FP32", self.network.model, self.images)

    def model(self, chosen: Sequence[Convolution]) -> onnx.ModelProto:
        """Return the graph with these convolutions in INT8."""
        return with_pairs(self.half, chosen, self.magnitudes, self.view) if chosen else self.half

    def run(self, title: str, chosen: Sequence[Convolution], *, compile_it: bool = True) -> Trial:
        """Return a trial; what was run before is not run again."""
        key = frozenset(one.name for one in chosen)
        done = self._done.get(key)
        wants_cost = compile_it and (done is None or done.compiled is None) and bool(here().rtx)
        if done is None or wants_cost:
            model = self.model(chosen)
            done = done or self._tried(title, chosen, model, 1)
            if wants_cost:
                done = replace(done, compiled=compiled(model, self.board, self.network.path.name))
        self._done[key] = done
        return replace(done, title=title)

    def of_block(self, block: str, candidates: Sequence[Convolution]) -> Trial:
        """Return a trial of one block alone, which says where INT8 hurts: on each :data:`BLOCK_STEP`-th picture."""
        chosen = [one for one in candidates if one.block == block]
        return self._tried(block, chosen, self.model(chosen), BLOCK_STEP)

    def _tried(self, title: str, chosen: Sequence[Convolution], model: onnx.ModelProto, step: int) -> Trial:
        reference = self.reference[::step]
        found = self._found(title, emulated(model), self.images[::step])
        return Trial(title, tuple(chosen), pair_count(model), deviation(reference, found, TOLERANCES["int8"]), None)

    def average_precision(self, model: onnx.ModelProto) -> float:
        """Return the AP of a graph on the labelled pictures, 0 to 100; FP16 results are rounded as a device does.

        Raises:
            ConfigError: when there are no labelled pictures, or no contract that names the classes.
        """
        contract = self.network.contract
        if self.labelled is None or contract is None:
            raise ConfigError("AP needs labelled pictures and a contract", where="--data", hint="leave --data out")
        sha256 = identity_of(self.network.path)
        runner = OrtRunner(self.network.path, model=model)
        opened = Opened(runner, contract, "int8", sha256, sha256)
        with TemporaryDirectory() as folder:
            found = evaluate_boxes(opened, self.labelled.data, self.labelled.images, Path(folder))
        return 100 * found.boxes.ap

    def average_precision_of(self, trial: Trial) -> float:
        """Return the AP of a trial, 0 to 100, see :meth:`average_precision`."""
        return self.average_precision(emulated(self.model(trial.chosen)))

    def _found(self, title: str, model: onnx.ModelProto, images: Sequence[Path]) -> list[Found]:
        with console.progress() as bar:
            task = bar.add_task(f"running {title}", total=-(-len(images) // self.network.shape[0]))
            return found_by(self.network, model, images, lambda: bar.advance(task))
