"""One way to build a plan through Polygraphy, for TensorRT 10.x and for TensorRT-RTX alike.

This runs in the builder's own process (:mod:`fine_edge.engine.compiler`), never in a command's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge.engine.options import BuildOptions

if TYPE_CHECKING:
    import tensorrt

RTX_COMPUTE_CAPABILITY = (8, 6)
"""SM86, the nearest to Orin's SM87 that TensorRT-RTX compiles for."""

MIB = 2**20

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """One build, as it is handed to the builder's process; paths are absolute.

    Attributes:
        onnx: the model.
        options: what to build.
        workspace_mib: limit of scratch memory; ``None`` leaves it to the builder.
        plan: file to write the plan to; ``None`` drops it.
        layers: file for what the engine says of its layers, where it can be asked.
        timing_cache: file to read tactics' timings from, if it is there, and to write them to; TensorRT only.
    """

    onnx: Path
    options: BuildOptions
    workspace_mib: int | None = None
    plan: Path | None = None
    layers: Path | None = None
    timing_cache: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        paths = {name: getattr(self, name) for name in ("onnx", "plan", "layers", "timing_cache")}
        texts = {name: None if path is None else str(path) for name, path in paths.items()}
        return {**texts, "options": self.options.to_json(), "workspace_mib": self.workspace_mib}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Read it back."""
        optional = {
            name: None if data[name] is None else Path(data[name]) for name in ("plan", "layers", "timing_cache")
        }
        options = BuildOptions.from_json(data["options"])
        return cls(Path(data["onnx"]), options, workspace_mib=data["workspace_mib"], **optional)


def monitor(options: BuildOptions, emit: Emit, cancelled: Callable[[], bool]) -> tensorrt.IProgressMonitor:
    """A progress monitor that reports phases and steps, and asks after each step whether to go on.

    TensorRT calls it from its own threads; ``emit`` must stand that.
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


def settings(job: Job, progress: tensorrt.IProgressMonitor) -> dict[str, Any]:
    """Keyword arguments of Polygraphy's ``CreateConfig``, and of ``CreateConfigRTX`` for that target."""
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
    """Have the weakly typed builder compute layers in FP32, and store what they give in FP32 as well.

    Without the second, a result beyond 65504 would still be stored in FP16. Weak typing is TensorRT 10.x's alone.
    """
    from tensorrt import float32

    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.name not in names:
            continue
        layer.precision = float32
        for index in range(layer.num_outputs):
            if layer.get_output(index).dtype == float32:  # indices and shapes stay what they are
                layer.set_output_type(index, float32)


def build_plan(job: Job, progress: tensorrt.IProgressMonitor) -> bytes:
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
    if options.plugins:
        network = LoadPlugins(list(options.plugins), obj=network)
    if options.keep_fp32:
        network = PostprocessNetwork(network, partial(keep_fp32, names=frozenset(options.keep_fp32)), "keep FP32")
    cache = str(job.timing_cache) if job.timing_cache and options.target == "tensorrt" else None
    config = create_config(**settings(job, progress))
    return bytes(EngineBytesFromNetwork(network, config=config, save_timing_cache=cache)())


def describe_plan(plan: bytes) -> dict[str, Any]:
    """What an engine for this machine's GPU says of itself: tensors, memory and layers.

    Only ever called in the builder's process, so that a plan which crashes TensorRT takes no command with it.

    Returns:
        ``tensors``: name, mode (``input``, ``output``) and shape; ``activation_bytes``; ``layers``: the inspector's
        JSON text.

    Raises:
        ValueError: when TensorRT refuses the plan; the reason is in the log.
    """
    import tensorrt as trt
    from polygraphy.backend.trt import get_trt_logger

    runtime = trt.Runtime(get_trt_logger())
    engine: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ValueError("TensorRT does not take the plan")
    tensors = []
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        shape, is_input = engine.get_tensor_shape(name), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        dims = [shape[axis] for axis in range(len(shape))]
        tensors.append({"name": name, "mode": "input" if is_input else "output", "shape": dims})
    inspector = engine.create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return {"tensors": tensors, "activation_bytes": int(engine.device_memory_size_v2), "layers": layers}
