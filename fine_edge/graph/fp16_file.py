"""Writing a converted graph, with a contract that vouches for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from fine_edge.atomic import output_errors, written_together
from fine_edge.contract import Artifact, Contract, contract_path
from fine_edge.errors import ConfigError
from fine_edge.graph.fp16 import to_fp16
from fine_edge.graph.fp16_study import Study
from fine_edge.graph.identity import identity_of


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that is no ONNX name or the FP32 file itself; raises :class:`ConfigError`."""
    if not target.name.endswith(".onnx"):
        raise ConfigError("the FP16 file needs a name that ends in .onnx", where=target, mend="--out NAME.fp16.onnx")
    if target.resolve() == source.resolve():
        raise ConfigError("this is the FP32 file", where=target, mend="--out NAME.fp16.onnx")


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
