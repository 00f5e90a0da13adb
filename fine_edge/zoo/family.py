"""What all detectors of one library share: how they are built, filled, run, counted and put into a graph."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from fine_edge.contract import NmsName, TensorSpec
from fine_edge.errors import MissingExtraError
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost


def detection_outputs(batch: int, rows: int) -> tuple[TensorSpec, ...]:
    """What every postprocessed detector gives; a row that finds nothing has score 0."""
    return (
        TensorSpec("labels", "int64", (batch, rows), "class index"),
        TensorSpec("boxes_xyxy", "float32", (batch, rows, 4), "x0, y0, x1, y1 in pixels of the input"),
        TensorSpec("scores", "float32", (batch, rows), "class score in [0, 1], best first"),
    )


@dataclass(frozen=True)
class GraphForm:
    """What an exported graph takes and gives.

    Attributes:
        batch, height, width: of the input (B, 3, H, W), static.
        raw: dense outputs of the network instead of what postprocessing leaves of them.
        nms: ``graph`` for operators that every compiler has, ``onnx`` for NonMaxSuppression, TensorRT's INMSLayer.
    """

    batch: int = 1
    height: int = 640
    width: int = 640
    raw: bool = False
    nms: NmsName = "graph"


@dataclass(frozen=True)
class Reference:
    """What a library's own forward pass gives, in the outputs of the graph.

    Attributes:
        outputs: by name, as :meth:`Family.outputs` lists them.
        margin: how far apart, in logits, the last candidate taken and the first one left out of a top-k were, where
            the rest of the network depends on it; infinite where it does not.
    """

    outputs: dict[str, Tensor]
    margin: float = float("inf")


class Family(ABC):
    """One library's detectors. Models are in eval mode, their fusion methods injected, under the library's own keys.

    Attributes:
        libraries: distributions whose versions decide what a graph looks like.
        builds_on_meta: whether :meth:`build` works without memory for weights.
    """

    libraries: tuple[str, ...] = ()
    builds_on_meta = True

    @abstractmethod
    def labels(self, entry: ModelEntry) -> tuple[str, ...]:
        """Class names by the index that the outputs carry, of the published weights."""

    @abstractmethod
    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> nn.Module:
        """The detector with the library's initial weights; ``num_labels`` as long as :meth:`labels`."""

    @abstractmethod
    def fusions(self, model: nn.Module) -> list[nn.Module]:
        """The injected methods, deepest fusion first; empty without any."""

    @abstractmethod
    def read(self, path: Path) -> Checkpoint:
        """A checkpoint of any layout that the library has, under the keys of :meth:`build`'s model.

        Raises:
            WeightsError: when it cannot be read, or only by running its code.
        """

    def rebuild(
        self, entry: ModelEntry, checkpoint: Checkpoint, num_labels: int, where: Path, *, identity: bool = True
    ) -> nn.Module:
        """The detector that a checkpoint was made for: :meth:`build`'s, as the file's settings want it.

        Args:
            entry: of the zoo.
            checkpoint: as :meth:`read` gives it.
            num_labels: of the checkpoint.
            where: the checkpoint lies, for messages.
            identity: see :meth:`build`.

        Raises:
            WeightsError: when the file's settings make another detector.
        """
        del checkpoint, where
        return self.build(entry, num_labels, identity=identity)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:
        """Check that the model computes what the file says beside its weights.

        Raises:
            WeightsError: naming the setting that differs.
        """
        del entry, model, checkpoint, where

    @abstractmethod
    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        """Number of classes of a checkpoint; ``None`` when it is none of this family's."""

    @abstractmethod
    def randomise(self, model: nn.Module) -> None:
        """Seeded by the caller: replace the weights outside the fusion methods by those of :mod:`random_weights`."""

    @abstractmethod
    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        """The library's own forward pass and postprocessing on preprocessed images (B, 3, H, W)."""

    @abstractmethod
    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """A module from images to the outputs, in order, that exports with static shapes. May take the model apart.

        Its children are called ``detector`` (with ``backbone``, ``encoder`` for the neck, ``decoder`` for the heads,
        ``proposals`` for what a second stage looks at) and ``postprocess``: graphs are read by these names.
        """

    @abstractmethod
    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        """Outputs of :meth:`graph`."""

    @abstractmethod
    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        """#Params and FLOPs by the convention that reproduces the paper's table."""

    @abstractmethod
    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """Write an ONNX file as a user of the library would without us: by its own exporter, or torch.onnx's."""


# Extras of what is not in ``export``.
_EXTRAS = {"ultralytics": "yolo"}


def family_of(name: str) -> Family:
    """What :attr:`Detector.family` names; its library is imported now and not before.

    Raises:
        MissingExtraError: when the library is not installed.
    """
    try:
        module = importlib.import_module(f"fine_edge.zoo.{name}.family")
    except ModuleNotFoundError as error:
        package = error.name or name
        if package.startswith("fine_edge"):
            raise
        raise MissingExtraError(package, _EXTRAS.get(package, "export")) from error
    family: Family = module.FAMILY
    return family
