"""The interface of a family: how the detectors of one library are built, filled, run, counted, trained and exported."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fine_edge.contract import NmsName, SamplingName, TensorSpec
from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.lowering.modules import fold_batch_norms, lower_modules
from fine_edge.preprocess import Preprocessing, preprocess_frames
from fine_edge.zoo.catalog import LIBRARIES, FamilyName, ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost


def detection_outputs(batch: int, rows: int) -> tuple[TensorSpec, ...]:
    """Return the outputs of every postprocessed detector; a row without a detection has score 0."""
    return (
        TensorSpec("labels", "int64", (batch, rows), "class index"),
        TensorSpec("boxes_xyxy", "float32", (batch, rows, 4), "x0, y0, x1, y1 in pixels of the input"),
        TensorSpec("scores", "float32", (batch, rows), "class score in [0, 1], best first"),
    )


@dataclass(frozen=True)
class GraphForm:
    """The form of an exported graph: its static input shape and the kind of its outputs.

    Attributes:
        batch, height, width: sizes of the input (B, 3, H, W).
        raw: whether the graph gives the network's dense outputs instead of postprocessed detections.
        nms: ``graph`` for operators that every compiler has, ``onnx`` for NonMaxSuppression, TensorRT's INMSLayer.
        sampling: how maps are read at computed positions: ``rows`` gathers tokens, ``grid`` is GridSample.
    """

    batch: int = 1
    height: int = 640
    width: int = 640
    raw: bool = False
    nms: NmsName = "graph"
    sampling: SamplingName = "rows"


@dataclass(frozen=True)
class Reference:
    """The result of a library's own forward pass, in the outputs of the graph.

    Attributes:
        outputs: tensors by name, as :meth:`Family.outputs` lists them.
        margin: the distance in logits between the last candidate that a top-k takes and the first one that it leaves
            out, where the rest of the network depends on that choice; infinite elsewhere.
    """

    outputs: dict[str, Tensor]
    margin: float = float("inf")


class Sample(NamedTuple):
    """One training picture: ``image`` (3, H, W), ``boxes_xyxy`` (N, 4) in its pixels, ``classes`` (N,) int64 from 0."""

    image: Tensor
    boxes_xyxy: Tensor
    classes: Tensor


Batch = dict[str, Any]


@dataclass(frozen=True)
class Trainable:
    """A detector with its library's losses, in the form that transformers' Trainer takes.

    Attributes:
        module: the module to train; its forward pass takes what ``collate`` gives and returns ``{"loss": ...}``.
        collate: turns samples into a batch.
    """

    module: nn.Module
    collate: Callable[[Sequence[Sample]], Batch]


class Family(ABC):
    """The detectors of one library.

    Models are in eval mode, have their fusion methods injected, and keep their library's own keys.

    Attributes:
        libraries: packages whose versions decide what a graph looks like.
        builds_on_meta: whether :meth:`build` works without memory for weights.
        trains_at_any_size: whether a training takes input sizes that an export refuses.
    """

    libraries: tuple[str, ...] = ()
    builds_on_meta = True
    trains_at_any_size = True

    # --- models

    @abstractmethod
    def labels(self, entry: ModelEntry) -> tuple[str, ...]:
        """Return the class names of the published weights, by the index that the outputs carry."""

    @abstractmethod
    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> nn.Module:
        """Build the detector with the library's initial weights; ``num_labels`` is the length of :meth:`labels`."""

    @abstractmethod
    def inject(self, model: nn.Module, config: MethodConfig) -> nn.Module:
        """Put a fusion method into the top-down fusions of a user's own model, in place.

        Raises:
            ForeignModelError: for a model of a class that the family does not know.
            ConfigError: for a model without such fusions, or with a method already.
        """

    @abstractmethod
    def fusions(self, model: nn.Module) -> list[nn.Module]:
        """Return the injected methods, deepest fusion first; empty without any."""

    @abstractmethod
    def backbone(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks of the backbone in the order that they run; each gives a map (B, C, H, W)."""

    @abstractmethod
    def randomise(self, model: nn.Module) -> None:
        """Replace the weights outside the fusion methods as :mod:`random_weights` says; the caller seeds torch."""

    # --- checkpoints

    @abstractmethod
    def read(self, path: Path) -> Checkpoint:
        """Read a checkpoint of any layout that the library has, under the keys of :meth:`build`'s model.

        Raises:
            WeightsError: when it cannot be read, or only by running its code.
        """

    def rebuild(
        self, entry: ModelEntry, checkpoint: Checkpoint, num_labels: int, where: Path, *, identity: bool = True
    ) -> nn.Module:
        """Build the detector that a checkpoint was made for, with the settings that the file states.

        Args:
            entry: the model's entry in the catalogue.
            checkpoint: what :meth:`read` returned.
            num_labels: number of classes in the checkpoint.
            where: path of the checkpoint, for messages.
            identity: whether FINE starts as the identity, as in :meth:`build`.

        Raises:
            WeightsError: when the file's settings make another detector.
        """
        del checkpoint, where
        return self.build(entry, num_labels, identity=identity)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:
        """Check that the model computes what the file states beside its weights.

        Raises:
            WeightsError: naming the setting that differs.
        """
        del entry, model, checkpoint, where

    def stated_settings(self, model: nn.Module) -> dict[str, Any] | None:
        """Return the settings that a checkpoint must state for a model; ``None`` where its weights state all."""
        del model
        return None

    @abstractmethod
    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        """Return the number of classes in a checkpoint; ``None`` when it is not one of this family."""

    # --- reference and graph

    @abstractmethod
    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        """Run the library's own forward pass and postprocessing on preprocessed images (B, 3, H, W)."""

    def reference_on(
        self, model: nn.Module, inputs: NDArray[np.generic], how: Preprocessing, *, raw: bool
    ) -> tuple[dict[str, NDArray[np.generic]], float]:
        """Return what a graph must give for its inputs, and the margin of :class:`Reference`.

        Args:
            model: the detector.
            inputs: preprocessed images (B, 3, H, W) float32; frames (B, H, W, 3) uint8 where ``how`` is in the graph.
            how: the preprocessing of the graph.
            raw: whether the graph gives dense outputs.
        """
        images, placement = preprocess_frames(inputs.astype(np.uint8), how) if how.in_graph else (inputs, None)
        with torch.inference_mode():
            reference = self.reference(model, torch.from_numpy(np.asarray(images, dtype=np.float32)), raw=raw)
        outputs: dict[str, NDArray[np.generic]] = {name: value.numpy() for name, value in reference.outputs.items()}
        # A graph that preprocesses frames gives boxes in pixels of the frame, not of the input.
        if placement:
            outputs["boxes_xyxy"] = placement.to_picture(outputs["boxes_xyxy"].astype(np.float32))
        return outputs, reference.margin

    @torch.no_grad()
    def lowered(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """Return the inference form of a model for one static input shape; the model itself stays as it is.

        Returns:
            A module from images (B, 3, H, W) to a tuple of the outputs that :meth:`outputs` lists.

        Raises:
            ConfigError: for a configuration that the lowered form does not cover.
        """
        # The lowering folds norms in place and takes the model apart, which the reference still needs whole.
        model = self.lower_layers(copy.deepcopy(model))
        return self.graph(model, form).requires_grad_(False).eval()

    def lower_layers(self, model: nn.Module) -> nn.Module:
        """Replace single layers by their exact inference forms before :meth:`graph`, in place."""
        fold_batch_norms(model)
        return lower_modules(model)

    @abstractmethod
    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """Return the module that is exported, with static shapes from images to the outputs; may take the model apart.

        Its children are called ``detector`` (with ``backbone``, ``encoder`` for the neck, ``decoder`` for the heads,
        ``proposals`` for the proposals of a second stage) and ``postprocess``: graphs are read by these names.
        """

    @abstractmethod
    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        """Return the outputs of :meth:`graph`.

        Raises:
            ConfigError: for an input size that the detector cannot work with.
        """

    @abstractmethod
    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """Write the ONNX file that a user of the library gets without us, by its own exporter or by torch.onnx."""

    # --- counting and training

    @abstractmethod
    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        """Count #Params and FLOPs by the convention that reproduces the paper's table."""

    def count_as_logged(self, model: nn.Module, height: int, width: int) -> Cost:
        """Count a detector by the convention of the authors' training log, for rows of the paper that quote it."""
        return self.count(model, height, width)

    def labels_of(self, categories: tuple[str, ...]) -> tuple[str, ...]:
        """Return the class names of a detector that is trained on a data set's categories."""
        return categories

    def trainable(self, entry: ModelEntry, model: nn.Module) -> Trainable:
        """Return a model with its library's losses.

        Raises:
            ConfigError: for a detector that its library trains better.
        """
        del model
        raise ConfigError(f"{entry.name} is trained by its own library", where=entry.name)


def family_of(name: FamilyName) -> Family:
    """Import a family, and with it the family's library, by its name in the catalogue.

    Raises:
        MissingExtraError: when the library is not installed.
    """
    try:
        # By name, so that naming models and counting those of one library imports no other library.
        module = importlib.import_module(f"fine_edge.zoo.{name}.family")
    except ModuleNotFoundError as error:
        package = error.name or name
        # A module of this package is nothing that an extra installs: its lack is a fault, shown as a traceback.
        if package.startswith("fine_edge"):
            raise
        extras = {library.package: library.extra for library in LIBRARIES.values()}
        raise MissingExtraError(package, extras.get(package, "export")) from error
    family: Family = module.FAMILY
    return family


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the remarks of torch.onnx on folded constants and on optional libraries that are missing."""
    # The remarks come by this logger and as Python's warnings.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export_with_defaults(module: nn.Module, example: Tensor, outputs: Sequence[str], path: Path) -> None:
    """Write the ONNX file that ``torch.onnx.export`` gives with names alone, the yardstick of our own exports."""
    with torch.no_grad(), quiet_exporter():
        # Without verbose=False the exporter prints its steps to standard output.
        program = torch.onnx.export(
            module, (example,), input_names=["images"], output_names=list(outputs), verbose=False
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    # Saved by onnx, as the exporter would put the weights into a second file beside this one.
    onnx.save(program.model_proto, path)
