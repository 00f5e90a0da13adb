"""What an engine is built as: target, precision, the builder's settings, and the batches that it takes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from fine_edge.contract import Batches, batches_text, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.fields import from_data, to_data
from fine_edge.files import contents_checked, read_json
from fine_edge.graph.input_size import InputSize, has_open_batch, network_inputs, picture_size
from fine_edge.graph.model_file import read_model
from fine_edge.graph.open_batch import largest_batch
from fine_edge.text import is_plain_name

BuildTarget = Literal["tensorrt", "rtx-sm86"]
EnginePrecision = Literal["fp16", "fp16-weak", "fp32", "int8"]
Verbosity = Literal["detailed", "layer_names_only", "none"]

TARGETS: tuple[BuildTarget, ...] = get_args(BuildTarget)
PRECISIONS: tuple[EnginePrecision, ...] = get_args(EnginePrecision)
VERBOSITIES: tuple[Verbosity, ...] = get_args(Verbosity)

MOST_BATCH = 2**16
# TensorRT's own default, and trtexec's: figures are then comparable with theirs.
DEFAULT_LEVEL = 3


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build. With an equal ONNX and machine, equal options give the same engine file.

    Attributes:
        precision: ``fp16``: strongly typed, the ONNX says what is FP16; ``fp16-weak``: an FP32 ONNX and the
            builder's FP16 flag, which picks per layer (TensorRT 10.x only); ``fp32``; ``int8``: strongly typed, pairs
            of QuantizeLinear and DequantizeLinear in the ONNX say what is INT8.
        target: ``tensorrt`` for this machine's GPU; ``rtx-sm86``: TensorRT-RTX ahead of time, without a GPU.
        optimization_level: 0 to 5, the builder's.
        workspace_mib: scratch memory that the builder may give a layer; ``None``: chosen from free memory.
        keep_fp32: layers, by ONNX node name, that ``fp16-weak`` must compute in FP32.
        profiling_verbosity: what the engine says of its layers; ``detailed`` maps them back to ONNX nodes.
        plugins: plugin libraries to load before parsing, paths.
        max_aux_streams: CUDA streams that kernels may run on beside the main one; ``None``: the builder's choice. What
            runs at one time cannot share memory: with 0, TensorRT-RTX plans 18 MiB for YOLOv10-S instead of 40.
        input_size: of the pictures, for a graph that leaves it open.
        batches: the smallest batch, the optimum and the largest of the engine's optimisation profile; ``None`` for an
            engine that takes one batch. With ``input_size``, that holds height and width alone.
    """

    precision: EnginePrecision = "fp16"
    target: BuildTarget = "tensorrt"
    optimization_level: int = DEFAULT_LEVEL
    workspace_mib: int | None = None
    keep_fp32: tuple[str, ...] = ()
    profiling_verbosity: Verbosity = "detailed"
    plugins: tuple[str, ...] = ()
    max_aux_streams: int | None = None
    input_size: InputSize | None = None
    batches: Batches | None = None

    def __post_init__(self) -> None:
        _require_choices(vars(self))
        if self.batches is not None and not 1 <= self.batches[0] <= self.batches[1] <= self.batches[2] <= MOST_BATCH:
            what = f"batches {batches_text(self.batches)} do not rise from 1 to at most {MOST_BATCH}"
            raise ConfigError(what, hint="give MIN:MAX or MIN:OPTIMUM:MAX, such as 1:4:8")
        for title, amount in (("workspace", self.workspace_mib), ("number of streams", self.max_aux_streams)):
            if amount is not None and amount > 2**31:
                raise ConfigError(f"a {title} of {amount} is too large")
        if self.optimization_level not in range(6):
            raise ConfigError(f"optimization level {self.optimization_level} is not 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"workspace of {self.workspace_mib} MiB is not positive")
        if self.max_aux_streams is not None and self.max_aux_streams < 0:
            raise ConfigError(f"{self.max_aux_streams} auxiliary streams cannot be")
        if self.precision == "fp16-weak" and self.target != "tensorrt":
            raise ConfigError(
                "TensorRT-RTX has no FP16 flag, so fp16-weak cannot be built for it",
                hint="use --precision fp16, which every TensorRT takes",
            )
        if self.keep_fp32 and self.precision != "fp16-weak":
            raise ConfigError(
                "layers are kept in FP32 by the builder only with fp16-weak; a strongly typed graph says it itself",
                hint="python -m fine_edge graph fp16 FILE.onnx --out FILE.fp16.onnx keeps them in the ONNX",
            )

    @property
    def strongly_typed(self) -> bool:
        """Return whether the graph alone decides the precision of every layer."""
        return self.precision != "fp16-weak"

    def to_json(self) -> dict[str, Any]:
        """Return the options as recipes and manifests hold them."""
        data: dict[str, Any] = to_data(self)
        if self.input_size is None:  # left away, so that engines built before there was a choice keep their key
            del data["input_size"]
        if self.batches is None:
            del data["batches"]
        return data

    @classmethod
    def from_json(cls, data: object) -> BuildOptions:
        """Read the options back; keys that are absent keep their defaults.

        Raises:
            ConfigError: for an unknown key or a value that cannot be.
        """
        if not isinstance(data, dict):
            raise ConfigError(f"build is {str(data)[:80]}, not an object")
        _require_keys(data, cls.__dataclass_fields__)
        _require_keys(data.get("input_size"), InputSize.__dataclass_fields__)
        _require_choices(data)
        try:
            return from_data(cls, data)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"build option {error}") from error


def _require_keys(data: object, known: Collection[str]) -> None:
    """Refuse a key that nothing would read: it is a slip of whoever wrote the recipe."""
    unknown = sorted(set(data) - set(known)) if isinstance(data, dict) else ()
    if unknown:
        raise ConfigError(f"build option {unknown[0]!r} is unknown", hint=f"known: {', '.join(known)}")


def _require_choices(values: Mapping[str, object]) -> None:
    """Refuse a word that is not one of a closed list, and name the list, which the check of types does not."""
    for key, known in (("precision", PRECISIONS), ("target", TARGETS), ("profiling_verbosity", VERBOSITIES)):
        if values.get(key, known[0]) not in known:
            what = f"{key.replace('_', ' ')} {values[key]!r} is unknown"
            raise ConfigError(what, hint=f"known: {', '.join(known)}")


_HINT = 'it needs {"model": NAME, "build": {...}}; without the file the defaults are used'


def recipe_path(model: str, folder: Path) -> Path:
    """Return ``FOLDER/MODEL.json``, where a recipe of the model would be."""
    return folder / f"{model}.json"


def read_recipe(model: str, folder: Path) -> BuildOptions:
    """Return the model's build options; the defaults where it has no recipe.

    Raises:
        ConfigError: when the file is broken or is another model's.
    """
    path = recipe_path(model, folder)
    if not is_plain_name(model) or not os.path.lexists(path):
        return BuildOptions()
    data = read_json(path, ConfigError, hint=_HINT)
    with contents_checked(path, ConfigError, title="recipe", hint=_HINT):
        recipe = from_data(_Recipe, data)
        if recipe.model != model:
            raise ConfigError(f"this is the recipe of {recipe.model!r}")
        return BuildOptions.from_json(recipe.build)


@dataclass(frozen=True)
class _Recipe:
    model: str
    build: dict[str, Any]


# The batches that an engine takes: one, or the range of its optimisation profile.
#
# TensorRT picks kernels for the optimum and plans memory for the largest batch. Where ``export --batch MIN:MAX`` names
# no optimum, it is the largest batch: a server that waits for a batch fills it.

Dims = tuple[int, ...]
# The smallest, the optimal and the largest shape of each input whose batch is open.
Profile = dict[str, tuple[Dims, Dims, Dims]]


def own_batches(model: onnx.ModelProto, path: Path) -> Batches | None:
    """Return the batches that a graph takes, by its contract or by itself; ``None`` where that is one, or unknown."""
    most = largest_batch(model)
    if most is None or not any(map(has_open_batch, network_inputs(model))):
        return None
    contract = contract_path(path)
    batches = read_contract(contract).batches if contract.exists() else None
    return batches or (1, most, most)


def optimum_size(path: Path) -> InputSize | None:
    """Return the size of a graph's inputs at the optimum of its batches; ``None`` where it takes one batch."""
    model = read_model(path, weights=False)
    batches = own_batches(model, path)
    return picture_size(model, batches[1], path) if batches else None


def batch_size(path: Path, batch: int) -> InputSize:
    """Return the size of a graph's inputs at one batch.

    Raises:
        ArtifactError: when the batch is beyond those of the graph.
    """
    model = read_model(path, weights=False)
    own = own_batches(model, path)
    if own is not None:
        _require_within(own, (batch,), path)
    return picture_size(model, batch, path)


def _require_within(own: Batches, asked: Sequence[int], path: Path) -> None:
    if not own[0] <= asked[0] <= asked[-1] <= own[2]:
        what = f"batch {batches_text(asked)} is beyond what the graph takes, {batches_text(own)}"
        hint = f"export it with --batch {min(own[0], asked[0])}:{max(own[2], asked[-1])}"
        raise ArtifactError(what, where=path, hint=hint)


def resolved(path: Path, options: BuildOptions) -> BuildOptions:
    """Return the options with the batches of the graph's own, where it takes several and nothing else is asked for.

    Raises:
        ArtifactError: when the batches that are asked for are beyond those of the graph.
    """
    model = read_model(path, weights=False)
    own = own_batches(model, path)
    if own is None:
        return options
    asked = options.batches or ((options.input_size.batch,) if options.input_size else own)
    _require_within(own, asked, path)
    return options if options.batches or options.input_size else replace(options, batches=own)


def profile_of(model: onnx.ModelProto, batches: Batches) -> Profile:
    """Return the profile of a graph whose only open dimensions are its inputs' first."""
    found = {}
    for value in network_inputs(model):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if dims and dims[0] < 1:
            least, best, most = ((batch, *dims[1:]) for batch in batches)
            found[value.name] = (least, best, most)
    return found


def trtexec_flags(profile: Profile) -> list[str]:
    """Return the options of trtexec that give its engine the same profile."""
    flags = []
    for place, bound in enumerate(("min", "opt", "max")):
        shapes = (f"{name}:{'x'.join(map(str, bounds[place]))}" for name, bounds in profile.items())
        flags.append(f"--{bound}Shapes={','.join(shapes)}")
    return flags
