"""An FP32 graph on its way to FP16: observed, its hazards named, its budget measured, the conversion proved."""

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
from fine_edge.fp16.budget import BudgetRow, budget, choices
from fine_edge.fp16.hazards import Evidence, Hazard, found_in, open_hazards
from fine_edge.fp16.keep_list import kept_in_sibling, proposed
from fine_edge.fp16.network import Network
from fine_edge.fp16.observe import CHUNK_MIB, Observation, observe
from fine_edge.fp16.operator_hazards import RULES
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.identity import identity_of
from fine_edge.graph.view import GraphView
from fine_edge.parity.tolerance import TOLERANCES

EMULATION = (
    "FP16 is emulated: each FP16 result is rounded once, sums are FP32. ONNX Runtime's own run of an FP16 file"
    " on x86 skips the rounding between neighbours and hides overflows; a GPU may fuse nodes (fewer roundings)"
    " or add in FP16 (more loss)."
)
LONGEST_ARGUMENT = 128 * 1024
"""Linux takes no longer argument (MAX_ARG_STRLEN)."""

# A comma ends an entry, quotes are dropped, a star is a wildcard.
_UNSPEAKABLE = ",'*\"\n"


def unspeakable(names: Collection[str]) -> list[str]:
    """Names that trtexec's grammar cannot express."""
    return sorted(name for name in names if any(character in name for character in _UNSPEAKABLE))


def layer_precisions(names: Collection[str], view: GraphView) -> str:
    """The arguments, one a line; empty for no names.

    ``--layerPrecisions`` sets what a layer computes in, ``--layerOutputTypes`` what it stores: without the second, a
    result beyond 65504 would still be stored in FP16. Layers with an integer result get the first alone.
    """
    spoken = sorted(set(names) - set(unspeakable(names)))
    if not spoken:
        return ""
    nodes = {node.name: node for node in view.nodes}
    all_float = [
        name
        for name in spoken
        if name in nodes and all(view.dtype(output) == TensorProto.FLOAT for output in nodes[name].output if output)
    ]
    lines = ["--precisionConstraints=obey", "--layerPrecisions=" + ",".join(f"{name}:fp32" for name in spoken)]
    if all_float:
        lines.append("--layerOutputTypes=" + ",".join(f"{name}:fp32" for name in all_float))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Study:
    """Everything one run found.

    Attributes:
        network: the FP32 network.
        view: of its graph.
        images: the pictures it ran on.
        seen: what its tensors held.
        hazards: those that are open, the worst first.
        averted: how many more lie in nodes that stay FP32 anyway.
        kept: nodes that stay FP32 anyway.
        kept_by: who says so.
        rows: the budget, empty when the outputs are not detections; the last row is the conversion proposed.
    """

    network: Network
    view: GraphView
    images: tuple[Path, ...]
    seen: Observation
    hazards: tuple[Hazard, ...]
    averted: int
    kept: frozenset[str]
    kept_by: str
    rows: tuple[BudgetRow, ...]

    @property
    def proposed(self) -> list[str]:
        """Nodes that should stay FP32 and do not yet."""
        return sorted(set(proposed(self.hazards)) - self.kept)

    @property
    def keep_fp32(self) -> frozenset[str]:
        """All nodes that stay FP32 in the conversion proposed."""
        return self.kept | frozenset(self.proposed)

    @property
    def beyond_exporter(self) -> list[str]:
        """Those of them that an export does not keep by itself: what ``export --keep-fp32`` must be given."""
        return sorted(self.keep_fp32 - set(kept_by_exporter(self.network.model)))

    @property
    def ok(self) -> bool | None:
        """Whether the conversion finds what FP32 finds; ``None`` when that cannot be told."""
        if not self.rows:
            return None
        last = self.rows[-1].drift
        return last is not None and last.within(TOLERANCES["fp16"])

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
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
        """What was run, what was not seen, and what the figures are worth."""
        contract = self.network.contract
        random = ", random weights: not what a trained network shows" if contract and contract.random_weights else ""
        described = machine.describe()
        notes = [
            f"{len(self.images)} pictures ({self.images[0].name} to {self.images[-1].name}) on {self.network.path.name}"
            f" sha256 {identity_of(self.network.path)[:12]}{random}; ONNX Runtime {machine.version('onnxruntime')},"
            f" {described['cpu']}.",
            f"{len(self.seen.stats)} float tensors seen in {self.seen.chunks} runs a batch, at most {CHUNK_MIB} MiB of"
            " them at one time.",
            EMULATION,
        ]
        if self.seen.hidden_nodes:
            notes.append(f"Not observed: {self.seen.hidden_nodes} nodes inside If, Loop or Scan.")
        if self.seen.untyped:
            notes.append(f"Not observed: {self.seen.untyped} tensors whose type cannot be inferred.")
        if self.kept:
            notes.append(f"FP32 already, {self.kept_by}: {len(self.kept)} of the nodes, hazards there: {self.averted}.")
        if unspoken := unspeakable(self.keep_fp32):
            notes.append(f"trtexec cannot be told of {', '.join(unspoken)}: a comma, quote or star in the name.")
        if not self.rows:
            notes.append("The outputs are not detections this package can read: no budget, and parity is not proved.")
        return notes


def study(network: Network, images: Sequence[Path], keep: Sequence[str] = ()) -> Study:
    """Observe a network on pictures, name its hazards and measure what FP16 does to its detections.

    Args:
        network: the FP32 network.
        images: picture files.
        keep: names of nodes that stay FP32, besides those that the exporter keeps.

    Raises:
        ConfigError: when a name is not in the graph.
    """
    if not images:
        raise ImageError("no pictures given", hint="--images FOLDER")
    view = GraphView(network.model)
    if unknown := sorted(set(keep) - {node.name for node in view.nodes}):
        raise ConfigError(f"no node named {unknown[0]!r} in {network.path.name}", hint="check the keep-list")
    kept, kept_by = _kept(network, keep)
    seen = observe(network, view, images)
    pixels = max(network.shape[2:])
    every = found_in(Evidence(view, seen, network.box_output, pixels), RULES)
    hazards = open_hazards(every, kept)
    rows: list[BudgetRow] = []
    if network.form != "unknown":
        wanted = choices(view, kept, proposed(hazards))
        with console.progress() as bar:
            batches = -(-len(images) // network.shape[0])
            task = bar.add_task("budget", total=(1 + len(wanted)) * batches)
            rows = budget(network, view, images, wanted, lambda: bar.advance(task))
    return Study(
        network, view, tuple(images), seen, tuple(hazards), len(every) - len(hazards), kept, kept_by, tuple(rows)
    )


def _kept(network: Network, keep: Sequence[str]) -> tuple[frozenset[str], str]:
    sibling = kept_in_sibling(network.path, network.model, network.contract)
    source = "as in the FP16 file beside it" if sibling is not None else "as the exporter does"
    kept = sibling if sibling is not None else kept_by_exporter(network.model)
    return frozenset(kept) | frozenset(keep), source + (" and --keep-fp32 says" if keep else "")


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that is no ONNX name or the FP32 file itself; raises :class:`ConfigError`."""
    if not target.name.endswith(".onnx"):
        raise ConfigError("the FP16 file needs a name that ends in .onnx", where=target, hint="--out NAME.fp16.onnx")
    if target.resolve() == source.resolve():
        raise ConfigError("this is the FP32 file", where=target, hint="--out NAME.fp16.onnx")


def write_fp16(study: Study, target: Path) -> None:
    """Convert with the proposed keep-list and write the file, its contract and golden file: all or none.

    The contract says which nodes were kept beyond those of every export, as ``export --keep-fp32`` does.
    """
    half = to_fp16(study.network.model, keep_fp32=study.keep_fp32)
    contract, source = study.network.contract, study.network.path
    beside = contract_path(target)
    with written_together(target.parent, target.name, last=beside.name) as partial, output_errors(target):
        onnx.save(half, partial / target.name)
        if contract is None:
            return
        artifact = Artifact(target.name, "fp16", identity_of(partial / target.name))
        same_place = beside.resolve() == contract_path(source).resolve()
        others = tuple(a for a in contract.artifacts if a.file != target.name) if same_place else ()
        golden = source.parent / Path(contract.golden.get("file", ".")).name
        if not same_place and golden.is_file():
            (partial / golden.name).write_bytes(golden.read_bytes())
        vouching = replace(contract, artifacts=(*others, artifact), made_by=_made_by(contract, study))
        (partial / beside.name).write_text(vouching.to_text(), encoding="utf-8")


def _made_by(contract: Contract, study: Study) -> dict[str, object]:
    beyond = study.beyond_exporter
    options = {key: value for key, value in contract.made_by.get("options", {}).items() if key != "keep_fp32"}
    return contract.made_by | {"options": options | ({"keep_fp32": beyond} if beyond else {})}
