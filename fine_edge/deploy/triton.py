"""Triton Inference Server: one model of a model repository, with a client that does the preprocessing.

Source: Triton's "Model Configuration" and "Model Repository", and its model_config.proto, by which the tests read
``config.pbtxt``. Where the batch is static, ``max_batch_size`` is 0 and the batch stands in the dims. Where it is open,
the server puts requests together, at best as many as the optimum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fine_edge.contract import Batches, TensorSpec, batches_text
from fine_edge.deploy.deployable import Deployable, model_file
from fine_edge.deploy.folder import Deployment, heading, label_lines, settings_of
from fine_edge.errors import ConfigError
from fine_edge.text import printable

Device = Literal["gpu", "cpu"]
CONFIG = "config.pbtxt"
CLIENT = "client.py"

# numpy's names of element types, and Triton's.
_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
_TASKS = {
    "detection": "`labels`, `boxes_xyxy` and `scores`, a row each object",
    "instance": "`labels`, `boxes_xyxy`, `scores` and `masks`, 28x28 probabilities over each box",
    "semantic": "`classes`, the class of each pixel of the input",
    "panoptic": "`labels`, `boxes_xyxy`, `scores`, `masks`, and `stuff`, the class of each pixel of the input",
}


def deploy(source: Deployable, name: str, *, device: Device = "gpu") -> Deployment:
    """Return the files of one model of a repository.

    Args:
        source: an ONNX file or an engine.
        name: of the model on the server, and of its folder.
        device: where ONNX Runtime computes; an engine computes on the GPU.

    Raises:
        ConfigError: when it takes no single picture although its batch is open: a server sends what is waiting.
    """
    batches = source.contract.batches
    # max_batch_size has no smallest batch beside it.
    if batches and batches[0] > 1:
        what = f"takes batches of {batches_text(batches)}, and a server runs one picture where no other waits"
        raise ConfigError(what, where=source.path, hint=f"make it for 1:{batches[2]}")
    # TensorRT has no other kind; ONNX Runtime has both.
    kind = "KIND_GPU" if source.manifest else f"KIND_{device.upper()}"
    file = "model.plan" if source.manifest else "model.onnx"
    # The client goes along as it is: it imports nothing of fine_edge.
    client = Path(__file__).with_name("triton_client.py").read_bytes()
    files: dict[str, bytes | Path] = {
        CONFIG: _config(source, name, kind).encode(),
        # Version 1 of the model, under the file's name that Triton looks for by default.
        f"1/{file}": model_file(source),
        "labels.txt": label_lines(source),
        CLIENT: client,
        "README.md": _readme(source, name).encode(),
    }
    return Deployment("triton", name, files, settings_of(source), _notes(source))


def _quoted(text: str) -> str:
    """Return a string of protocol buffers' text format; the texts are printable."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tensor(kind: str, spec: TensorSpec, batches: Batches | None) -> str:
    """Return a tensor's description; the dims lack a batch that the server chooses."""
    # Where max_batch_size is above 0, Triton itself puts the batch in front of the dims.
    dims = ", ".join(map(str, spec.shape[1:] if batches else spec.shape))
    return f"{kind} [\n  {{ name: {_quoted(spec.name)} data_type: {_TYPES[spec.dtype]} dims: [ {dims} ] }}\n]\n"


def _config(source: Deployable, name: str, kind: str) -> str:
    """Return ``config.pbtxt``."""
    platform = "tensorrt_plan" if source.manifest else "onnxruntime_onnx"
    batches = source.contract.batches
    parameters = {
        "task": source.contract.task,
        "labels": "labels.txt",
        # Triton gives the parameters to who asks for the model's configuration: they say there what is served.
        "source_sha256": source.sha256,
        "random_weights": str(source.contract.random_weights).lower(),
    }
    return "".join(
        [
            f"name: {_quoted(name)}\nplatform: {_quoted(platform)}\nmax_batch_size: {batches[2] if batches else 0}\n",
            *(_tensor("input", spec, batches) for spec in source.contract.inputs),
            *(_tensor("output", spec, batches) for spec in source.contract.outputs),
            _batching(batches) if batches else "",
            f"instance_group [\n  {{ kind: {kind} count: 1 }}\n]\n",
            "version_policy: { latest { num_versions: 1 } }\n",
            *(
                f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}\n"
                for key, value in parameters.items()
            ),
        ]
    )


def _batching(batches: Batches) -> str:
    """Return how requests are put together: at once where the optimum or the largest batch is waiting."""
    # Kernels are picked for the optimum; the largest batch fills what memory was planned for.
    preferred = ", ".join(str(batch) for batch in sorted({*batches[1:]}))
    return f"dynamic_batching {{ preferred_batch_size: [ {preferred} ] }}\n"


def _shape_text(source: Deployable) -> str:
    batches, shape = source.contract.batches, source.contract.inputs[0].shape
    first = f"{batches[0]} to {batches[2]}" if batches else str(shape[0])
    return f"[{', '.join([first, *map(str, shape[1:])])}]"


def _batch_text(source: Deployable) -> str:
    """Return what the server does with several requests, as lines of the README."""
    batches = source.contract.batches
    if batches is None:
        return f"""Shapes are static: `max_batch_size` is 0, the batch of {source.contract.batch} stands in the dims,
  and the server cannot batch requests. Export with `--batch` for more pictures in one request, or with `--batch 1:8`
  for a server that batches."""
    return f"""The server puts requests together, up to {batches[2]} pictures, at best {batches[1]}, and waits for none.
  `max_queue_delay_microseconds` in `dynamic_batching` makes it wait: more pictures a second, and a longer latency."""


def _machine(source: Deployable) -> str:
    if source.manifest is None:
        return "`model.onnx` runs in ONNX Runtime, on any machine."
    built_by = ", ".join(f"{key} {value}" for key, value in vars(source.manifest.platform).items() if value is not None)
    return f"`model.plan` runs on one kind of machine alone, in one TensorRT: {printable(built_by)}."


def _notes(source: Deployable) -> tuple[str, ...]:
    plugins = source.manifest.options.plugins if source.manifest else ()
    return tuple(f"the server must load the plugin first: LD_PRELOAD={printable(Path(name).name)}" for name in plugins)


def _readme(source: Deployable, name: str) -> str:
    contract = source.contract
    image = contract.inputs[0]
    notes = "".join(f"- {note}\n" for note in _notes(source))
    return f"""{heading(source, name, "Triton")}
    tritonserver --model-repository=DIR          # the folder above this one
    pip install 'tritonclient[http]' pillow
    python {CLIENT} street.jpg --url HOST:8000

{_machine(source)}

- In: `{image.name}`, {image.dtype} {_shape_text(source)}. The preprocessing is in `deploy.json`;
  `{CLIENT}` does it.
- Out: {_TASKS[contract.task]}.
  Boxes are in pixels of the input; `{CLIENT}` scales them back. Rows that find nothing have score 0.
- `labels.txt` names the classes, line by line from 0.
- {_batch_text(source)}
{notes}"""
