"""Building of a plan through Polygraphy, with the same code for TensorRT 10.x and TensorRT-RTX.

This code runs in the builder's process (:mod:`fine_edge.engine.compiler`), never in the process of a command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fine_edge.engine.options import BuildOptions, Profile
from fine_edge.machine import MIB

if TYPE_CHECKING:
    import tensorrt

# SM86, the architecture closest to Orin's SM87 that TensorRT-RTX compiles for.
RTX_COMPUTE_CAPABILITY = (8, 6)

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class BuildJob:
    """The order that the builder's process gets for one build; paths are absolute.

    Attributes:
        onnx: the model.
        options: what to build.
        workspace_mib: limit of scratch memory; ``None`` leaves it to the builder.
        plan: the file to write the plan to; ``None`` discards the plan.
        layers: the file for the description of the engine's layers; TensorRT only.
        timing_cache: the file of tactics' timings, read if it exists and then written; TensorRT only.
        profile: the smallest, the optimal and the largest shape of each input whose batch is open.
    """

    onnx: Path
    options: BuildOptions
    workspace_mib: int | None = None
    plan: Path | None = None
    layers: Path | None = None
    timing_cache: Path | None = None
    profile: Profile = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the object that is sent to the builder's process."""
        paths = {name: getattr(self, name) for name in ("onnx", "plan", "layers", "timing_cache")}
        texts = {name: None if path is None else str(path) for name, path in paths.items()}
        options = {"options": self.options.to_json(), "workspace_mib": self.workspace_mib}
        return {**texts, **options, "profile": self.profile}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BuildJob:
        """Read the object that :meth:`to_json` returns."""
        optional = {
            name: None if data[name] is None else Path(data[name]) for name in ("plan", "layers", "timing_cache")
        }
        options = BuildOptions.from_json(data["options"])
        profile = msgspec.convert(data["profile"], Profile)
        return cls(Path(data["onnx"]), options, workspace_mib=data["workspace_mib"], profile=profile, **optional)


def monitor(options: BuildOptions, emit: Emit, cancelled: Callable[[], bool]) -> tensorrt.IProgressMonitor:
    """Return a progress monitor that reports phases and steps, and checks after each step whether to go on.

    TensorRT calls it from its own threads, so ``emit`` must be safe to call from any thread.
    """
    if options.target == "tensorrt":
        import tensorrt as trt
    else:
        import tensorrt_rtx as trt  # type: ignore[no-redef]  # the same names, so the types of TensorRT check both

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            emit({"event": "start", "phase": phase_name, "parent": parent_phase, "steps": num_steps})

        def step_complete(self, phase_name: str, step: int) -> bool:
            emit({"event": "step", "phase": phase_name, "step": step})
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            emit({"event": "finish", "phase": phase_name})

    return Monitor()


def _polygraphy_profile(shapes: Profile) -> Any:
    from polygraphy.backend.trt import Profile as Ranges

    ranges = Ranges()
    for name, (least, best, most) in shapes.items():
        ranges.add(name, least, best, most)
    return ranges


def settings(job: BuildJob, progress: tensorrt.IProgressMonitor) -> dict[str, Any]:
    """Return the keyword arguments for Polygraphy's ``CreateConfig``, or for ``CreateConfigRTX``."""
    options = job.options
    if options.target == "tensorrt":
        import tensorrt as trt
    else:
        import tensorrt_rtx as trt  # type: ignore[no-redef]  # see monitor
    verbosities = {
        "detailed": trt.ProfilingVerbosity.DETAILED,
        "layer_names_only": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
        "none": trt.ProfilingVerbosity.NONE,
    }
    found: dict[str, Any] = {
        "builder_optimization_level": options.optimization_level,
        "profiling_verbosity": verbosities[options.profiling_verbosity],
        "progress_monitor": progress,
    }
    if options.max_aux_streams is not None:
        found["max_aux_streams"] = options.max_aux_streams
    if job.profile:
        found["profiles"] = [_polygraphy_profile(job.profile)]
    if job.workspace_mib is not None:
        found["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: job.workspace_mib * MIB}
    if options.target != "tensorrt":
        return found | {"compute_capabilities": [RTX_COMPUTE_CAPABILITY]}
    if job.timing_cache is not None and job.timing_cache.is_file():
        found["load_timing_cache"] = str(job.timing_cache)
    if options.precision == "fp16-weak":
        found["fp16"] = True
        found["precision_constraints"] = "obey" if options.keep_fp32 else None
    return found


def keep_fp32(network: tensorrt.INetworkDefinition, names: frozenset[str]) -> None:
    """Make the weakly typed builder compute layers in FP32 and store their results in FP32.

    Without the second, a result beyond 65504 would still be stored in FP16. Only TensorRT 10.x has weak typing.
    """
    from tensorrt import float32

    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.name not in names:
            continue
        layer.precision = float32
        for index in range(layer.num_outputs):
            if layer.get_output(index).dtype == float32:  # indices and shapes keep their types
                layer.set_output_type(index, float32)


def build_plan(job: BuildJob, progress: tensorrt.IProgressMonitor) -> bytes:
    """Compile an ONNX file into a serialised engine.

    Raises:
        polygraphy.exception.PolygraphyException: when the parser or the builder refuses the model; the
            reason is in Polygraphy's log.
    """
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineBytesFromNetwork,
        LoadPlugins,
        NetworkFromOnnxPath,
        PostprocessNetwork,
    )

    options = job.options
    create_config = CreateConfig
    if options.target != "tensorrt":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        create_config = CreateConfigRTX
    network = NetworkFromOnnxPath(str(job.onnx), strongly_typed=options.strongly_typed)
    # The parser asks for plugins by name while it reads, so that their libraries are loaded before.
    if options.plugins:
        network = LoadPlugins(list(options.plugins), obj=network)
    if options.keep_fp32:
        network = PostprocessNetwork(network, partial(keep_fp32, names=frozenset(options.keep_fp32)), "keep FP32")
    # TensorRT-RTX compiles without a GPU and times nothing.
    cache = str(job.timing_cache) if job.timing_cache and options.target == "tensorrt" else None
    config = create_config(**settings(job, progress))
    return bytes(EngineBytesFromNetwork(network, config=config, save_timing_cache=cache)())


def _numbers(dims: tensorrt.Dims) -> list[int]:
    return [int(dims[axis]) for axis in range(len(dims))]  # Dims is no sequence of Python's


def describe_plan(plan: bytes) -> dict[str, Any]:
    """Return the tensors, memory and layers of an engine for this machine's GPU.

    It is called in the builder's process only, so that a plan which crashes TensorRT does not end the command.

    Returns:
        ``tensors``: name, mode (``input``, ``output``), shape with -1 for what is open, and of such inputs the
        ``profile``, its smallest, optimal and largest shape; ``profiles``: their number; ``activation_bytes``;
        ``layers``: the inspector's JSON text.

    Raises:
        ValueError: when TensorRT refuses the plan; the reason is in the log.
    """
    import tensorrt as trt
    from polygraphy.backend.trt import get_trt_logger

    runtime = trt.Runtime(get_trt_logger())
    engine: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ValueError("TensorRT refuses the plan")
    tensors = []
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        shape, is_input = engine.get_tensor_shape(name), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        found: dict[str, Any] = {"name": name, "mode": "input" if is_input else "output", "shape": _numbers(shape)}
        if is_input and -1 in _numbers(shape):
            found["profile"] = [_numbers(dims) for dims in engine.get_tensor_profile_shape(name, 0)]
        tensors.append(found)
    inspector = engine.create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    figures = {"activation_bytes": int(engine.device_memory_size_v2), "profiles": engine.num_optimization_profiles}
    return {"tensors": tensors, **figures, "layers": layers}
