"""The FP16 study of a graph: observe its tensors, report hazards, measure the budget and check the conversion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from fine_edge import console, machine
from fine_edge.contract import Artifact, Contract, contract_path
from fine_edge.errors import ConfigError, ImageError
from fine_edge.files import output_errors, written_together
from fine_edge.fp16.budget import BudgetRow, budget, selections
from fine_edge.fp16.hazards import RULES, Evidence, Hazard, found_in, open_hazards
from fine_edge.fp16.keep_list import kept_in_sibling, proposed
from fine_edge.fp16.network import Network
from fine_edge.fp16.observe import CHUNK_MIB, Observation, observe
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.identity import identity_of
from fine_edge.graph.view import GraphView
from fine_edge.parity.report import TOLERANCES

EMULATION = (
    "FP16 is emulated: each FP16 result is rounded once, sums are FP32. ONNX Runtime's own run of an FP16 file"
    " on x86 skips the rounding between neighbours and hides overflows; a GPU may fuse nodes (fewer roundings)"
    " or add in FP16 (more loss)."
)
# The longest argument that Linux accepts, in bytes (MAX_ARG_STRLEN).
LONGEST_ARGUMENT = 128 * 1024

# In trtexec's arguments a comma ends an entry, quotes are dropped and a star is a wildcard.
_SPECIAL_CHARACTERS = ",'*\"\n"


def inexpressible(names: Collection[str]) -> list[str]:
    """Return the names that trtexec's arguments cannot express."""
    return sorted(name for name in names if any(character in name for character in _SPECIAL_CHARACTERS))


def layer_precisions(names: Collection[str], view: GraphView) -> str:
    """Return trtexec's arguments that keep layers in FP32, one a line; an empty text for no names.

    ``--layerPrecisions`` sets the type that a layer computes in, ``--layerOutputTypes`` the type that it stores.
    Without the second, a result beyond 65504 would still be stored in FP16. Layers with an integer result get only the
    first.
    """
    layers = sorted(set(names) - set(inexpressible(names)))
    if not layers:
        return ""
    nodes = {node.name: node for node in view.nodes}
    all_float = [
        name
        for name in layers
        if name in nodes and all(view.dtype(output) == TensorProto.FLOAT for output in nodes[name].output if output)
    ]
    lines = ["--precisionConstraints=obey", "--layerPrecisions=" + ",".join(f"{name}:fp32" for name in layers)]
    if all_float:
        lines.append("--layerOutputTypes=" + ",".join(f"{name}:fp32" for name in all_float))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Study:
    """The results of one study.

    Attributes:
        network: the FP32 network.
        view: the view of its graph.
        images: the pictures it ran on.
        observation: the ranges of its tensors.
        hazards: the open hazards, the worst first.
        averted: number of hazards in nodes that stay FP32 anyway.
        kept: nodes that stay FP32 anyway.
        kept_by: where these nodes come from, for the notes.
        rows: the budget; empty when the outputs cannot be read. The last row is the proposed conversion.
    """

    network: Network
    view: GraphView
    images: tuple[Path, ...]
    observation: Observation
    hazards: tuple[Hazard, ...]
    averted: int
    kept: frozenset[str]
    kept_by: str
    rows: tuple[BudgetRow, ...]

    @property
    def proposed(self) -> list[str]:
        """Nodes that should stay FP32 and are not kept yet."""
        return sorted(set(proposed(self.hazards)) - self.kept)

    @property
    def keep_fp32(self) -> frozenset[str]:
        """All nodes that stay FP32 in the proposed conversion."""
        return self.kept | frozenset(self.proposed)

    @property
    def beyond_exporter(self) -> list[str]:
        """Nodes of the proposed conversion that an export does not keep by itself, for ``export --keep-fp32``."""
        return sorted(self.keep_fp32 - set(kept_by_exporter(self.network.model)))

    @property
    def ok(self) -> bool | None:
        """Whether the converted graph finds what FP32 finds; ``None`` when the outputs cannot be read."""
        if not self.rows:
            return None
        last = self.rows[-1].drift
        return last is not None and last.within(TOLERANCES["fp16"])

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        contract = self.network.contract
        return {
            "onnx": str(self.network.path),
            "sha256": identity_of(self.network.path),
            "model": contract.model if contract else None,
            "random_weights": contract.random_weights if contract else None,
            "images": [path.name for path in self.images],
            "machine": machine.describe(),
            "hazards": [hazard.to_json() for hazard in self.hazards],
            "kept_already": {"by": self.kept_by, "nodes": sorted(self.kept), "hazards_averted": self.averted},
            "keep_fp32": self.proposed,
            "layer_precisions": layer_precisions(self.keep_fp32, self.view),
            "budget": [row.to_json() for row in self.rows],
            "parity": {"ok": self.ok, "tolerance": asdict(TOLERANCES["fp16"])},
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """Return notes on what was run, what was not observed, and how far the figures hold."""
        contract = self.network.contract
        random = (
            ", random weights: ranges differ from a trained network" if contract and contract.random_weights else ""
        )
        described = machine.describe()
        notes = [
            f"{len(self.images)} pictures ({self.images[0].name} to {self.images[-1].name}) on {self.network.path.name}"
            f" sha256 {identity_of(self.network.path)[:12]}{random}; ONNX Runtime {machine.version('onnxruntime')},"
            f" {described['cpu']}.",
            f"{len(self.observation.stats)} float tensors observed in {self.observation.chunks} runs a batch, at most"
            f" {CHUNK_MIB} MiB of them at one time.",
            EMULATION,
        ]
        if self.observation.hidden_nodes:
            notes.append(f"Not observed: {self.observation.hidden_nodes} nodes inside If, Loop or Scan.")
        if self.observation.untyped:
            notes.append(f"Not observed: {self.observation.untyped} tensors whose type cannot be inferred.")
        if self.kept:
            notes.append(f"FP32 already, {self.kept_by}: {len(self.kept)} of the nodes, hazards there: {self.averted}.")
        if names := inexpressible(self.keep_fp32):
            notes.append(f"trtexec cannot keep {', '.join(names)}: a comma, quote or star is in the name.")
        if not self.rows:
            notes.append("The outputs are nothing that fine-edge can read: no budget, and parity is not proved.")
        return notes


def study(network: Network, images: Sequence[Path], keep: Sequence[str] = ()) -> Study:
    """Observe a network on pictures, report its hazards and measure what FP16 does to what it finds.

    Args:
        network: the FP32 network.
        images: picture files.
        keep: names of nodes that stay FP32, besides those that the exporter keeps.

    Raises:
        ConfigError: when a name is not in the graph.
        ImageError: when there are no pictures.
    """
    if not images:
        raise ImageError("no pictures given", where="--images", hint="give a folder or files: --images FOLDER")
    view = GraphView(network.model)
    if unknown := sorted(set(keep) - {node.name for node in view.nodes}):
        hint = "check the keep-list: it holds one node name of this graph a line"
        raise ConfigError(f"no node named {unknown[0]!r} in {network.path.name}", where="--keep-fp32", hint=hint)
    kept, kept_by = _kept(network, keep)
    observation = observe(network, view, images)
    pixels = max(network.shape[2:])
    every = found_in(Evidence(view, observation, network.box_output, pixels), RULES)
    hazards = open_hazards(every, kept)
    rows: list[BudgetRow] = []
    # Hazards need no detections; a budget of what FP16 flips does.
    if network.form != "unknown":
        chosen = selections(view, kept, proposed(hazards))
        with console.progress() as bar:
            batches = -(-len(images) // network.shape[0])
            task = bar.add_task("budget", total=(1 + len(chosen)) * batches)
            rows = budget(network, view, images, chosen, lambda: bar.advance(task))
    return Study(
        network, view, tuple(images), observation, tuple(hazards), len(every) - len(hazards), kept, kept_by, tuple(rows)
    )


def _kept(network: Network, keep: Sequence[str]) -> tuple[frozenset[str], str]:
    sibling = kept_in_sibling(network.path, network.model, network.contract)
    source = "as in the FP16 file beside it" if sibling is not None else "as the exporter does"
    kept = sibling if sibling is not None else kept_by_exporter(network.model)
    return frozenset(kept) | frozenset(keep), source + (" and --keep-fp32 says" if keep else "")


def check_target(source: Path, target: Path) -> None:
    """Refuse to write to a file that does not end in .onnx, or to the FP32 file.

    Raises:
        ConfigError: with a name that is possible.
    """
    hint = "give another name: --out NAME.fp16.onnx"
    if not target.name.endswith(".onnx"):
        raise ConfigError("the name of the FP16 file does not end in .onnx", where=target, hint=hint)
    if target.resolve() == source.resolve():
        raise ConfigError("this is the FP32 file, which would be overwritten", where=target, hint=hint)


def write_fp16(study: Study, target: Path) -> None:
    """Convert with the proposed keep-list and write the file, its contract and golden file: all or none.

    The contract lists the nodes that were kept beyond those of every export, as ``export --keep-fp32`` writes it.
    """
    half = to_fp16(study.view, keep_fp32=study.keep_fp32)
    contract, source = study.network.contract, study.network.path
    target_contract = contract_path(target)
    with written_together(target.parent, target.name, last=target_contract.name) as partial, output_errors(target):
        onnx.save(half, partial / target.name)
        if contract is None:
            return
        artifact = Artifact(target.name, "fp16", identity_of(partial / target.name))
        same_place = target_contract.resolve() == contract_path(source).resolve()
        others = tuple(a for a in contract.artifacts if a.file != target.name) if same_place else ()
        golden = source.parent / Path(contract.golden.get("file", ".")).name
        if not same_place and golden.is_file():
            (partial / golden.name).write_bytes(golden.read_bytes())
        extended = replace(contract, artifacts=(*others, artifact), made_by=_made_by(contract, study))
        (partial / target_contract.name).write_text(extended.to_text(), encoding="utf-8")


def _made_by(contract: Contract, study: Study) -> dict[str, object]:
    beyond = study.beyond_exporter
    options = {key: value for key, value in contract.made_by.get("options", {}).items() if key != "keep_fp32"}
    return contract.made_by | {"options": options | ({"keep_fp32": beyond} if beyond else {})}
