"""``python -m fine_edge.parity``: does an exported graph still find what the PyTorch model finds?

Outputs are compared tensor by tensor and as detections. A detector's queries come out of a
top-k: rounding swaps near-ties, so rows are first assigned to each other by what they
say (box and class scores), never by their index.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge import command, console
from fine_edge.contract import Artifact, Contract, Precision, bound_contract, sha256_of
from fine_edge.detections import Agreement, Detections, agree, from_outputs, from_raw
from fine_edge.errors import ArtifactError, MissingExtraError
from fine_edge.images import NamedImage, find_images, read_image, sample_photographs
from fine_edge.preprocess import preprocess
from fine_edge.runners.base import Array, Runner
from fine_edge.table import Column, Table

Outputs = dict[str, Array]


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted difference of one precision.

    Attributes:
        box_px: of a box coordinate, pixels of the input.
        score: of a class score.
        logit: of a class logit.
        flipped: share of the detections that may change class or vanish although they score
            clearly above the cut-off.
    """

    box_px: float
    score: float
    logit: float
    flipped: float


# FP32: rounding only. What it grows to over the depth of a network is measured in the README; R50 at
# 640x640 reproduces FP64 to 0.005 px and 3e-4 in the logits.
# FP16: eps is 8192 times that of FP32.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(box_px=0.02, score=2e-4, logit=2e-3, flipped=0.0),
    "fp16": Tolerance(box_px=8.0, score=0.05, logit=0.5, flipped=0.01),
}


@dataclass(frozen=True)
class TensorDrift:
    """One output compared over all inputs: the largest differences, and the input and index of the largest."""

    output: str
    max_abs: float
    max_rel: float
    where: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Within tolerance; NaN is not."""
        return bool(self.max_abs <= self.tolerance)


@dataclass(frozen=True)
class ParityReport:
    """Everything one comparison found."""

    model: str
    precision: Precision
    reference: str
    candidate: str
    artifact_sha256: str
    random_weights: bool
    inputs: tuple[str, ...]
    tensors: tuple[TensorDrift, ...]
    detections: Agreement
    tolerance: Tolerance

    @property
    def ok(self) -> bool:
        """Whether every tensor and the detections are within tolerance."""
        total = self.detections.matched + self.detections.flipped
        return (
            all(tensor.ok for tensor in self.tensors)
            and self.detections.flipped <= self.tolerance.flipped * total
            and self.detections.max_score_drift <= self.tolerance.score
            and self.detections.max_box_drift_px <= self.tolerance.box_px
        )

    @property
    def worst(self) -> TensorDrift:
        """The tensor nearest to, or furthest beyond, its tolerance."""
        return max(self.tensors, key=lambda t: np.inf if np.isnan(t.max_abs) else t.max_abs / t.tolerance)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        worst = self.worst
        return {
            "ok": self.ok,
            "model": self.model,
            "precision": self.precision,
            "reference": self.reference,
            "candidate": self.candidate,
            "artifact_sha256": self.artifact_sha256,
            "random_weights": self.random_weights,
            "inputs": list(self.inputs),
            "worst": {"output": worst.output, "max_abs": worst.max_abs, "max_rel": worst.max_rel, "where": worst.where},
            "tensors": [asdict(tensor) | {"ok": tensor.ok} for tensor in self.tensors],
            "detections": asdict(self.detections),
            "tolerance": asdict(self.tolerance),
        }


def _assigned(reference: Outputs, candidate: Outputs, image: int) -> NDIndex:
    """For each row of the reference, the row of the candidate that says the same (boxes first, then scores)."""
    from scipy.optimize import linear_sum_assignment

    box_name, score_name = ("boxes", "logits") if "boxes" in reference else ("boxes_xyxy", "scores")
    cost = _distance(reference[box_name][image], candidate[box_name][image])
    scores = [o[score_name][image].reshape(len(o[score_name][image]), -1) for o in (reference, candidate)]
    cost = cost / (cost.max() or 1) + 1e-3 * _distance(*scores)
    if "labels" in reference:
        cost = cost + 10.0 * (reference["labels"][image][:, None] != candidate["labels"][image][None])
    rows, columns = linear_sum_assignment(np.nan_to_num(cost, nan=1e6, posinf=1e6))
    order: NDIndex = columns[np.argsort(rows)]
    return order


NDIndex = np.ndarray[Any, np.dtype[np.intp]]


def _distance(a: Array, b: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Largest coordinate difference of every row of a (N, D) to every row of b (M, D): (N, M)."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    out = np.zeros((len(left), len(right)))
    for dim in range(left.shape[1]):  # one dimension at a time: (N, M, D) would take 80 times the memory
        np.maximum(out, np.abs(left[:, None, dim] - right[None, :, dim]), out=out)
    return out


def _same_shape(contract: Contract, reference: Outputs, candidate: Outputs, where: object) -> None:
    for spec in contract.outputs:
        for name, outputs in (("reference", reference), ("artifact", candidate)):
            if spec.name not in outputs or outputs[spec.name].shape != spec.shape:
                found = outputs[spec.name].shape if spec.name in outputs else "nothing"
                raise ArtifactError(
                    f"the {name} gives {found} for {spec.name}, the contract says {spec.shape}", where=where
                )


def _detections(contract: Contract, outputs: Outputs, image: int) -> Detections:
    if contract.postprocessed:
        return from_outputs(outputs, image)
    return from_raw(outputs, *contract.input_hw, image)


def _tolerance_of(output: str, tolerance: Tolerance, contract: Contract) -> float | None:
    return {
        "boxes_xyxy": tolerance.box_px,
        "scores": tolerance.score,
        "logits": tolerance.logit,
        # Normalised boxes: the same pixels as a share of the longer side.
        "boxes": tolerance.box_px / max(contract.input_hw),
    }.get(output)


def compare(
    contract: Contract, artifact: Artifact, cases: list[tuple[str, Outputs, Outputs]], *, reference: str, candidate: str
) -> ParityReport:
    """Compare reference and candidate outputs of several named inputs.

    Rows that pair up no better than a tie at the end of the top-k are left to the detection level, which
    counts them; everything else enters the tensor differences.
    """
    tolerance = TOLERANCES[artifact.precision]
    worst: dict[str, TensorDrift] = {}
    agreements: list[Agreement] = []
    for name, expected, got in cases:
        _same_shape(contract, expected, got, artifact.file)
        for image in range(contract.batch):
            agreements.append(
                agree(
                    _detections(contract, expected, image),
                    _detections(contract, got, image),
                    score_tolerance=tolerance.score,
                )
            )
            order = _assigned(expected, got, image)
            paired = _paired_rows(contract, expected, got, image, order)
            for spec in contract.outputs:
                limit = _tolerance_of(spec.name, tolerance, contract)
                if limit is None:
                    continue  # labels: compared as detections
                a = expected[spec.name][image].astype(np.float64)
                b = got[spec.name][image].astype(np.float64)[order]
                drift = _drift(spec.name, a, b, paired, limit, f"{name}, image {image}")
                if spec.name not in worst or not drift.max_abs <= worst[spec.name].max_abs:
                    worst[spec.name] = drift
    return ParityReport(
        model=contract.model,
        precision=artifact.precision,
        reference=reference,
        candidate=candidate,
        artifact_sha256=artifact.sha256,
        random_weights=contract.random_weights,
        inputs=tuple(name for name, _, _ in cases),
        tensors=tuple(worst.values()),
        detections=_total(agreements),
        tolerance=tolerance,
    )


def _paired_rows(contract: Contract, expected: Outputs, got: Outputs, image: int, order: NDIndex) -> NDIndex:
    """Rows whose partner is the same query: same class and boxes that overlap at all or nearly touch.

    The others are near-ties that only one side let into its top-k.
    """
    box_name = "boxes_xyxy" if contract.postprocessed else "boxes"
    size = 1.0 if contract.postprocessed else float(max(contract.input_hw))
    gap = np.abs(expected[box_name][image].astype(np.float64) - got[box_name][image].astype(np.float64)[order])
    same = ~(gap.max(axis=1) * size > 32.0)  # NaN stays in, to be found
    if contract.postprocessed:
        same &= expected["labels"][image] == got["labels"][image][order]
    return np.flatnonzero(same)


def _drift(
    output: str, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], rows: NDIndex, limit: float, name: str
) -> TensorDrift:
    difference = np.abs(a[rows] - b[rows])
    if not difference.size:
        return TensorDrift(output, float("inf"), float("inf"), f"{name}: no row has a partner", limit)
    flat = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    index = np.unravel_index(flat, difference.shape)
    where = (int(rows[index[0]]), *(int(i) for i in index[1:]))
    relative = difference / np.maximum(np.abs(a[rows]), 1e-6 + np.abs(a).max() * 1e-3)
    return TensorDrift(output, float(difference[index]), float(relative.max()), f"{name}, row {where}", limit)


def _total(agreements: list[Agreement]) -> Agreement:
    return Agreement(
        sum(a.matched for a in agreements),
        sum(a.flipped for a in agreements),
        sum(a.ties for a in agreements),
        max(a.max_score_drift for a in agreements),
        max(a.max_box_drift_px for a in agreements),
    )


def inputs_for(contract: Contract, images: list[NamedImage]) -> list[tuple[str, Array]]:
    """Real pictures through the contract's preprocessing, then one input of noise; each a full batch."""
    height, width = contract.input_hw
    cases: list[tuple[str, Array]] = []
    for image in images:
        tensor, _ = preprocess(image.pixels, height, width, contract.preprocessing)
        cases.append((image.name, np.repeat(tensor, contract.batch, axis=0)))
    noise = np.random.default_rng(0).random(contract.inputs[0].shape, dtype=np.float32)
    return [*cases, ("uniform noise", noise)]


def against_golden(onnx_path: Path, runner: Runner) -> ParityReport:
    """Compare an artifact with the golden outputs that were stored when it was exported. Needs no torch."""
    contract, artifact = bound_contract(onnx_path)
    path = onnx_path.with_name(contract.golden["file"])
    if not path.is_file() or sha256_of(path) != contract.golden["sha256"]:
        raise ArtifactError(
            "the golden file is missing or not the one the contract names",
            where=path,
            mend="copy it with the ONNX file",
        )
    with np.load(path, allow_pickle=False) as golden:
        names = [key.removesuffix("/images") for key in golden.files if key.endswith("/images")]
        cases = []
        for name in names:
            expected: Outputs = {spec.name: golden[f"{name}/{spec.name}"] for spec in contract.outputs}
            cases.append((name, expected, runner.run({contract.inputs[0].name: golden[f"{name}/images"]})))
    return compare(contract, artifact, cases, reference="golden (pytorch-cpu)", candidate=runner.name)


def against_pytorch(
    onnx_path: Path, runner: Runner, images: list[NamedImage], weights: Path | None = None
) -> ParityReport:
    """Compare an artifact with the PyTorch model it was exported from, on pictures and on noise."""
    contract, artifact = bound_contract(onnx_path)
    try:
        from fine_edge.runners.eager import EagerRunner
        from fine_edge.zoo.catalog import find
        from fine_edge.zoo.load import load
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} (or check with --golden)", "export") from error
    provenance = contract.made_by["weights"]
    detector = load(find(contract.model), weights, provenance.get("seed", 0))
    if (provenance["source"], provenance.get("sha256")) != (
        detector.provenance["source"],
        detector.provenance.get("sha256"),
    ):
        raise ArtifactError(
            "was exported from other weights", where=onnx_path, mend="give the same --weights, or check with --golden"
        )
    eager = EagerRunner(detector.model, raw=not contract.postprocessed)
    cases = []
    with console.progress() as bar:
        for name, tensor in bar.track(inputs_for(contract, images), description="comparing"):
            feed: Outputs = {contract.inputs[0].name: tensor}
            cases.append((name, eager.run(feed), runner.run(feed)))
    return compare(contract, artifact, cases, reference=eager.name, candidate=runner.name)


def table(report: ParityReport) -> Table:
    """The report as people read it."""
    weights = ", random weights" if report.random_weights else ""
    view = Table(
        f"{report.model} {report.precision}: {report.candidate} against {report.reference}{weights}",
        [
            Column("output", numeric=False),
            Column("max abs"),
            Column("max rel"),
            Column("tolerance"),
            Column("where", numeric=False),
            Column("", numeric=False),
        ],
    )
    for t in report.tensors:
        view.add(
            t.output, f"{t.max_abs:.3g}", f"{t.max_rel:.3g}", f"{t.tolerance:.3g}", t.where, "ok" if t.ok else "FAILS"
        )
    d = report.detections
    view.notes.append(
        f"Detections: {d.matched} matched, {d.flipped} flipped, {d.ties} ties at the cut-off; largest drift"
        f" {d.max_score_drift:.2g} in score, {d.max_box_drift_px:.3g} px in a box coordinate."
    )
    view.notes.append(f"Inputs: {', '.join(report.inputs)}.")
    return view


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.parity",
        description="Compare an exported detector with its PyTorch model. Exit code 1 beyond tolerance.",
    )
    parser.add_argument(
        "target", metavar="MODEL|FILE.onnx", help="a model of the zoo (exported if needed) or an ONNX file"
    )
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--golden", action="store_true", help="check against the stored outputs, without torch")
    parser.add_argument("--weights", type=Path, help="checkpoint the model was exported from (default: random weights)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument(
        "--images", type=Path, nargs="+", help="pictures or folders (default: scikit-image's photographs)"
    )
    parser.add_argument("--input-size", default="640", metavar="SIDE|HxW")
    parser.add_argument("--raw", action="store_true", help="compare logits and boxes instead of detections")
    parser.add_argument("--out", type=Path, default=Path("engines"), help="where artifacts are (default: engines)")
    parser.add_argument("--json", action="store_true")
    return parser


def _artifact(args: argparse.Namespace) -> Path:
    from fine_edge.export.artifacts import ensure_exported
    from fine_edge.export.request import ExportRequest, parse_size

    if args.target.endswith(".onnx"):
        return Path(args.target)
    height, width = parse_size(args.input_size)
    request = ExportRequest(
        args.target, args.weights, args.precision, height=height, width=width, raw=args.raw, seed=args.seed
    )
    return ensure_exported(request, args.out)


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    onnx_path = _artifact(args)
    bound_contract(onnx_path)  # before anything loads the file
    from fine_edge.runners.ort import OrtRunner

    runner = OrtRunner(onnx_path)
    if args.golden:
        report = against_golden(onnx_path, runner)
    else:
        images = [read_image(p) for p in find_images(args.images)] if args.images else sample_photographs()[:3]
        report = against_pytorch(onnx_path, runner, images, args.weights)
    if args.json:
        console.print_json(report.to_json())
    else:
        table(report).print(console.out)
    if not report.ok:
        worst = report.worst
        console.warn(
            f"parity fails: worst is {worst.output}, {worst.max_abs:.3g} (tolerance {worst.tolerance:.3g}) at {worst.where}"
        )
    return 0 if report.ok else 1


if __name__ == "__main__":
    command.run(main)
