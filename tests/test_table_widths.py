"""Tables of the commands on terminals of 80 and 100 columns; the bench's device and estimates have tests of their own.

What is not read from committed files is made up, with names as long as they get.
"""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from terminal import WIDTHS, assert_fits, shown

from fine_edge.analyze.energy import MAPS, MapEnergy
from fine_edge.analyze.field_page import stage_table, token_table
from fine_edge.analyze.fields import Fields, MeanField, StageField, TokenFields
from fine_edge.analyze.heat_page import energy_table, gain_table
from fine_edge.analyze.sums import Gaussian
from fine_edge.bench.compare import compare
from fine_edge.bench.record import read_record
from fine_edge.bench.table import to_table
from fine_edge.cli import deploy, doctor, engine, graph, parity, predict, quantize, zoo
from fine_edge.detections import Agreement
from fine_edge.doctor.software import Check, Diagnosis
from fine_edge.evaluate import tables as changes
from fine_edge.evaluate import tables as evaluate
from fine_edge.evaluate.average_precision import AveragePrecision
from fine_edge.evaluate.comparison import ERRORS
from fine_edge.evaluate.drift_page import drift_table
from fine_edge.evaluate.matching import ErrorCounts
from fine_edge.evaluate.resampling import Difference
from fine_edge.evaluate.segment_comparison import ImageChange
from fine_edge.files import read_json
from fine_edge.fp16.budget import Deviation
from fine_edge.graph.parts import Part
from fine_edge.graph.view import Finding
from fine_edge.int8.compiled import GraphCost
from fine_edge.int8.trials import Trial
from fine_edge.layers.cost import FineCost
from fine_edge.layers.layer import LayerProfile, LayerTime
from fine_edge.layers.tables import cost_table, parts_table
from fine_edge.matrix.document import Matrix
from fine_edge.matrix.row import MatrixRow
from fine_edge.parity.report import TOLERANCES, ParityReport, TensorDrift
from fine_edge.samples import Ratio
from fine_edge.zoo.catalog import CATALOG
from fine_edge.zoo.paper import DOWN_ROWS, ROWS
from fine_edge.zoo.tables import CountedRow

BENCH = Path(__file__).parents[1] / "bench"
RECORDS = sorted((BENCH / "results").glob("*.json"))
NODE = "/detector/decoder/layers.0/encoder_attn/sampling_offsets/MatMul_with_a_long_name_1"
NAMES = ("rtdetr_r18_fine_vanilla.fp32.onnx", "rtdetr_r18_fine_vanilla.fp16.engine")


def _zoo(number):
    rows = []
    for row in (*ROWS, *DOWN_ROWS):
        if row.table == number:
            entry = CATALOG.get(row.model)
            fusion, attention = (entry.fusion, entry.attention) if entry else ("FPN + FINE", "aats")
            convention = f"as {entry.family if entry else 'nobody'} counts"
            figures = (row.params_m or 42.0, row.flops_g, convention, row)
            rows.append(CountedRow(number, row.model, fusion, attention, row.input_hw, *figures))
    return zoo.table(number, rows)


def _evaluation():
    precision = AveragePrecision(*[0.381] * 12, {"fire hydrant": 0.912, "cat": 0.5})
    counts = ErrorCounts(
        12345, 67890, 34567, {"duplicate": 11111, "class_confusion": 22222, "localisation": 33333, "background": 44444}
    )
    return SimpleNamespace(
        origin=SimpleNamespace(
            model=NAMES[0],
            precision="fp32",
            backend="onnxruntime-cpu",
            artifact_sha256="ab" * 32,
            random_weights=True,
            preprocessed="exact",
        ),
        data="instances_val2017.json",
        images=5000,
        skipped={},
        boxes=precision,
        masks=precision,
        errors=counts,
        errors_by_size={"small": counts, "medium": counts, "large": counts},
        errors_by_category={"fire hydrant": counts, "cat": counts},
    )


def _comparison():
    change = Difference(-12345.0, -23456.0, -1234.0)
    evaluation = _evaluation()
    side = SimpleNamespace(evaluation=evaluation, errors=lambda _: evaluation.errors)
    return SimpleNamespace(
        names=NAMES,
        a=side,
        b=side,
        kinds=("bbox", "segm"),
        ap=dict.fromkeys(("bbox", "segm"), Difference(0.01, -0.02, 0.03)),
        errors=dict.fromkeys(("bbox", "segm"), dict.fromkeys(ERRORS, change)),
        mask_changes=SimpleNamespace(objects=range(12345), means=(0.761, 0.792), mean=Difference(0.03, 0.02, 0.04)),
        threshold=0.8,
        data=SimpleNamespace(images=range(5000), path=Path("instances_val2017.json")),
        figures=lambda *_: (0.381, 0.392),
        gain=lambda *_: 0.028,
    )


def _segment_comparison():
    change = Difference(0.0123, -0.0234, 0.0345)
    images = {number: f"frankfurt/frankfurt_000001_0{number}_leftImg8bit.png" for number in range(5000)}
    seen = ImageChange(7, 0.951, 0.962, 123456, 2097152, "traffic light taken for vegetation", 123456, 12345)
    side = SimpleNamespace(origin=_evaluation().origin)
    return SimpleNamespace(
        names=NAMES,
        a=side,
        b=side,
        data=SimpleNamespace(images=images, path=Path("gtFine/val")),
        is_semantic=True,
        main="miou",
        drop=0.123,
        differences={"miou": change, "pixel_accuracy": change},
        by_category=dict.fromkeys(("traffic light", "car"), change),
        by_image=(seen,),
        moved_share=0.0123,
        moved_quantiles=lambda: (0.01, 0.1, 0.2),
        figure=lambda _: (0.381, 0.392),
        of_category=lambda _: (0.381, 0.392),
    )


def _drift():
    return SimpleNamespace(
        comparison=_comparison(),
        quantiles=lambda _: (0.01, 12.34, 123.45),
        matched=12345,
        flipped=12,
        flipped_share=0.01,
        of_pixels=False,
        drops={"bbox": 0.1, "segm": None},
    )


def _profiles():
    names = ["backbone", "encoder", "decoder", "fine"]
    layers = [
        LayerTime(f"{NODE}_{name}", "gemm", (NODE,), Part(name), 12.345, 25.0, 2**28, 2**24, is_mixed=True)
        for name in names
    ]
    made = LayerProfile("rtdetr_r18_fine.fp16.engine by trtexec 10.7", tuple(layers), 123.45, 12.3, 13.4)
    return made, LayerProfile("rtdetr_r18.fp16.engine by trtexec 10.7", tuple(layers[:3]), 123.45, 12.3, 13.4)


def _findings():
    message = "4 attention(s) in FP32, which is never fused: the maps of scores are kept in memory, all of them"
    return [
        Finding("FE16", "warning", NODE, message, "export with --precision fp16"),
        Finding("FE02", "error", "n", "no", "x"),
    ]


def _hazards():
    hazard = SimpleNamespace(
        tensor=f"{NODE}_output_0", node=NODE, max_abs=123456.0, keep_fp32=True, reason="overflows " * 12
    )
    drift = SimpleNamespace(
        box_px=(0.123, 1.234, 12.345), score=(0.0001, 0.0012, 0.0123), flipped_share=0.0123, of_pixels=False
    )
    row = SimpleNamespace(module="all but what is proposed", nodes=1234, drift=drift)
    network = SimpleNamespace(path=Path("rtdetr_r18_fine_vanilla.fp32.onnx"))
    return SimpleNamespace(network=network, hazards=[hazard], proposed=[NODE], rows=[row])


def _parity():
    drifts = [
        TensorDrift(name, 1.23e-05, 0.00123, 1.1e-05, "photograph astronaut.png, [0, 299, 3]", 0.02)
        for name in ("boxes_xyxy", "scores")
    ]
    inputs = ("astronaut.png", "chelsea.png", "coffee.png", "noise")
    detections = Agreement(900, 1, 2, 1e-4, 0.5)
    return ParityReport(
        "rtdetr_r18_fine_vanilla",
        "fp16",
        "PyTorch FP32",
        "ONNX Runtime, rounded",
        "ab" * 32,
        True,
        inputs,
        (),
        tuple(drifts),
        detections,
        TOLERANCES["fp16"],
    )


def _engine():
    platform = SimpleNamespace(gpu="Orin", sm=87, l4t="36.4.0", tensorrt="10.7.0", rtx=None)
    manifest = SimpleNamespace(
        model="rtdetr_r18_fine_vanilla",
        precision="fp16",
        target="rtx-sm86",
        options=SimpleNamespace(input_size="1x3x640x640", batches=None),
        platform=platform,
        power_mode="25W",
        kernels=165,
        fused_attention=6,
        activation_mib=64.5,
        weights_mib=43.0,
        build_s=612.3,
        onnx_sha256="ab" * 32,
        engine_sha256="cd" * 32,
    )
    path = Path("/home/somebody/checkouts/fine_edge/engines/of/the/last/week/rtdetr_r18_fine_vanilla.fp16.engine")
    return SimpleNamespace(path=path, manifest=manifest, reused=True)


def _inspection():
    compiled = SimpleNamespace(kernels=range(146), fused_attention=4, activation_mib=29.6, weights_mib=43.0)
    inputs = "images float32 (1, 3, 640, 640), orig_target_sizes int64 (1, 2), and one more that makes it long"
    return SimpleNamespace(
        compiled=compiled, inputs=inputs, compile_s=12.3, compiler="TensorRT-RTX 1.7", onnx_sha256="ab" * 32
    )


def _matrix(models):
    data = read_json(BENCH / "matrix.json", ValueError)
    rows = {row["model"]: MatrixRow.from_json(row) for row in data["rows"]}
    return Matrix(rows, {"source_sha256": data["source_sha256"], "libraries": {}}, 2).table(list(rows)[:models])


def _predictions(task):
    row = {
        "image": "a_photograph_with_a_name.png",
        "label": "fire hydrant",
        "score": 0.9123,
        "box_xyxy_px": (1, 22, 333, 4444),
    }
    return predict._table("caption " * 30, [{**row, "area_px": 123456, "share": 0.123}], SimpleNamespace(task=task))


def _deployed():
    listed = {"target": "deepstream", "random_weights": True, "notes": ["a note of many words " * 9]}
    files = [{"path": f"{NAMES[0]}.contract.json", "sha256": "ab" * 32}]
    return deploy._table(Path("deployments/deepstream/rtdetr_r18_fine_vanilla"), listed | {"files": files})


def _origin():
    return {
        "model": "semantic_fpn_r50_fine_vanilla",
        "weights": {"source": "random"},
        "input_hw": (1024, 2048),
        "stages_at": (0.5, 0.5),
        "tokens_at": (0.123, 0.1),
        "r": (1, 2, 4),
    }


def _fields():
    wide = MeanField(None, (1.0, 2.0), 1234.567, 123.456, 2345.678, Gaussian(1.0, 2.0, 1234.567, 0.4567))
    ratio = Ratio(12.345, 11.234, 13.456)
    stages = tuple(StageField(one, 2 ** (one + 1), wide, ratio if one > 1 else None) for one in (1, 2, 3, 4))
    tokens = tuple(TokenFields(f"l={level}", 4, r, r == 2, wide, wide, ratio) for level in (3, 2, 1) for r in (1, 2, 4))
    return Fields(_origin(), stages, tokens, ratio, 12345, {})


def _heatmaps():
    ratio, sizes = Ratio(1.2345, 1.1234, 1.3456), ("all", "small", "medium", "large")
    energies = [
        MapEnergy(f"l={level}", name, size, 0.1234, 0.2345, ratio, 12345, 123456)
        for size in sizes
        for level in (3, 2, 1)
        for name in MAPS
    ]
    gains = {(f"l={level}", size): ratio for size in sizes for level in (3, 2, 1)}
    return SimpleNamespace(origin=_origin(), energies=energies, gains=gains, images=12345)


def _quantised():
    drift = Deviation(4800, 120, 0.0123, (12.34, 123.45, 456.78), (0.0123, 0.1234, 0.5678))
    cost = GraphCost(1234, 6, 123.4, 234.5, 123.45, 1198, 112.34)
    trials = {name: Trial(name, (), 1234, drift, cost) for name in ("FP16", "backbone+neck without encoder", "neck")}
    return SimpleNamespace(
        network=SimpleNamespace(path=Path("rtdetr_r18_fine_vanilla.onnx")),
        plan=SimpleNamespace(drift_images=range(16), method="percentile", calibrated=SimpleNamespace(paths=range(64))),
        half=trials["FP16"],
        candidates=(trials["neck"],),
        chosen=trials["backbone+neck without encoder"],
        blocks={"backbone": trials["neck"], "encoder": trials["FP16"]},
    )


def tables():
    """Each table by the command that prints it; made when it is asked for."""
    made = {f"bench-{path.stem}": lambda path=path: to_table(read_record(path)) for path in RECORDS}
    made |= {f"zoo-{number}": lambda number=number: _zoo(number) for number in ("1", "2", "3", "6", "7", "8")}
    record = RECORDS[-2]
    return made | {
        "analyze-stages": lambda: stage_table(_fields()),
        "analyze-tokens": lambda: token_table(_fields()),
        "analyze-heatmap": lambda: energy_table(_heatmaps()),
        "analyze-gains": lambda: gain_table(_heatmaps()),
        "bench-compare": lambda: compare(read_record(record), read_record(record)).table,
        "evaluate": lambda: evaluate.precision_table(_evaluation()),
        "evaluate-errors": lambda: evaluate.error_table(_evaluation()),
        "evaluate-compare": lambda: changes.precision_change_table(_comparison()),
        "evaluate-compare-errors": lambda: changes.error_change_table(_comparison(), "segm"),
        "evaluate-compare-segments": lambda: changes.segment_change_table(_segment_comparison()),
        "evaluate-compare-images": lambda: changes.image_change_table(_segment_comparison()),
        "evaluate-drift-segments": lambda: changes.segment_drift_table(_segment_comparison(), 0.1),
        "evaluate-drift": lambda: drift_table(_drift(), 0.1),
        "layers": lambda: parts_table(_profiles()[0]),
        "layers-baseline": lambda: cost_table(FineCost(*_profiles())),
        "graph-check": lambda: graph._table(Path("rtdetr_r18_fine_vanilla.fp32.onnx"), _findings()),
        "graph-fp16": lambda: graph.hazard_table(_hazards()),
        "graph-fp16-budget": lambda: graph.budget_table(_hazards().rows),
        "parity": lambda: parity.table(_parity()),
        "quantize": lambda: quantize.placement_table(_quantised()),
        "quantize-blocks": lambda: quantize.block_table(_quantised()),
        "engine-build": lambda: engine._engine_table(_engine(), Path("m.onnx")),
        "engine-inspect": lambda: engine._inspection_table(Path("m.onnx"), _inspection()),
        "deploy": _deployed,
        "matrix": lambda: _matrix(12),
        "predict": lambda: _predictions("detection"),
        "predict-segments": lambda: _predictions("panoptic"),
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", tables())
def test_a_table_fits_the_terminal_and_loses_no_figure(name, width):
    assert_fits(tables()[name](), width)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_at_most_six_lines_stand_below_a_benchs_table(path):
    table = to_table(read_record(path))
    assert len(table.brief) <= 5
    below = shown(table, 100).split(table.rows[-1][0])[-1].splitlines()[1:]
    assert len(below) <= 6
    assert below[-1] == "Definitions and details: --explain."
    explained = " ".join(shown(table, 100, explain=True).split())
    assert all(" ".join(note.split()) in explained for note in table.notes)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_doctors_page_fits(width, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(doctor.console, "out", Console(file=out, width=width))
    line = Check(
        "TensorRT", "warn", "not on this machine, looked in " + "/usr/lib/aarch64-linux-gnu" * 4, "install it " * 12
    )
    doctor._print(Diagnosis({}, (line,), (line,)))
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert out.getvalue().split().count("install") == 24
