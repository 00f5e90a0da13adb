import csv
import io
from dataclasses import replace

import pytest
from PIL import Image
from tiny_bench import as_on_a_device, as_pairs, make_row

from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.picture import draw, write_picture
from fine_edge.bench.record import MeasuredGroup
from fine_edge.bench.table import to_table


def cells_of(record):
    rows = list(csv.DictReader(io.StringIO(to_table(record).to_csv())))
    return rows[0], rows[1]


def test_columns_are_those_of_table_3_with_the_paper_apart(record):
    titles = [column.full_title for column in to_table(record).columns]
    table3 = ["Model", "Attention", "Complexity", "#Params (M)", "FLOPs (G)", "Mem (MiB)", "FPS", "Latency (ms)", "AP"]
    assert [title for title in titles if title in table3] == table3
    assert titles[-5:] == [f"{name} paper (Orin Nano)" for name in ("Mem", "FPS", "Latency (ms)", "Ratio", "AP")]
    assert [bool(column.source) for column in to_table(record).columns] == [False] * 12 + [True] * 5


def test_cells_hold_measurements_and_dashes_for_what_is_not_known(record):
    base, fine = cells_of(record)
    assert base["Attention"] == "-"
    assert fine["Attention"] == "AATS"
    assert fine["AP"] == "-"
    assert base["Ratio 95 % CI"] == "-"
    assert (fine["Latency (ms)"], fine["FPS"], fine["Ratio"]) == ("488.4", "2.50", "1.200")
    assert fine["Ratio 95 % CI"] == "1.200 .. 1.200"
    assert fine["Ratio paper (Orin Nano)"] == "1.034"
    assert fine["AP paper (Orin Nano)"] == "38.7"


def test_the_accuracy_of_an_evaluated_artifact_takes_the_dashs_place(record):
    evaluated = replace(record, rows=tuple(replace(row, accuracy={"ap": 39.71}) for row in record.rows))
    assert cells_of(evaluated)[1]["AP"] == "39.7"
    assert not any(note.startswith("AP:") for note in to_table(evaluated).notes)


def test_the_title_says_where_it_was_measured(record):
    title = to_table(record).title
    for words in ("Test CPU", "ONNX Runtime (CPU)", "FP32", "640x640", "8 rounds"):
        assert words in title
    assert "QUICK" not in title
    assert "QUICK LOOK" in to_table(replace(record, quick=True)).title


def test_notes_define_the_figures_and_name_images_weights_and_the_harness(record):
    notes = " ".join(to_table(record).notes)
    for words in (
        "skimage/coffee.png",
        "random weights",
        "null runner",
        "0.6 us per inference",
        "back-to-back queries / wall time",
        "2^20",
        "not Jetson figures",
        "a dash until",
    ):
        assert words in notes
    assert "Warning" not in notes


def test_scatter_is_warned_of(with_samples):
    shaky = with_samples([300, 600, 350, 700, 400, 500, 900, 450])
    assert any("rtdetr_r18_fine is unstable" in note for note in to_table(shaky).notes)


def test_p90_appears_once_there_are_64_samples(record):
    def repeated(count):
        rows = tuple(replace(row, samples_ms=row.samples_ms * (count // 8)) for row in record.rows)
        return [c.title for c in to_table(replace(record, rounds=count, rows=rows)).columns]

    assert "Latency p90 (ms)" not in repeated(56)
    assert "Latency p90 (ms)" in repeated(64)


def test_rtx_columns_appear_where_something_was_compiled(record):
    rows = (record.rows[0], replace(record.rows[1], rtx=RtxMemory(32.06, 37.2)))
    base, fine = cells_of(replace(record, rows=rows))
    assert base["RTX FP16 activation (MiB)"] == "-"
    assert (fine["RTX FP16 activation (MiB)"], fine["RTX FP16 weights (MiB)"]) == ("32.06", "37.20")


def test_a_suite_outside_the_paper_has_no_paper_columns(record):
    rows = tuple(replace(row, paper=None, params_m=None) for row in record.rows)
    table = to_table(replace(record, rows=rows))
    assert not any(column.source for column in table.columns)
    assert not any("Orin" in note for note in table.notes)
    assert "#Params (M)" not in [column.title for column in table.columns]


def test_pairs_are_shown_as_table_1_would_be(pairs_record):
    table = to_table(pairs_record)
    ours = [column.title for column in table.columns if not column.source]
    assert ours[:3] == ["Model", "#Params (M)", "FLOPs (G)"]  # one attention strategy: no column for it
    assert ours[5:9] == ["FPS", "Latency (ms)", "Ratio", "Ratio 95 % CI"]
    assert ours[9:] == ["FPS ratio", "AP", "AP50", "AP S"]
    paper = [column.full_title for column in table.columns if column.source]
    assert paper == [f"{name} paper (Orin Nano)" for name in ("FPS", "FPS ratio", "AP", "AP50", "AP S")]
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["Ratio"] for row in rows] == ["1.000", "1.020", "1.000", "1.050"]
    assert [row["Ratio 95 % CI"] == "-" for row in rows] == [True, False, True, False]
    assert [row["FPS ratio"] for row in rows] == ["1.000", "1.020", "1.000", "1.050"]
    assert [row["FPS ratio paper (Orin Nano)"] for row in rows] == ["1.000", "1.026", "1.000", "1.068"]
    assert rows[3]["AP50"] == "-"
    assert rows[3]["AP50 paper (Orin Nano)"] == "61.8"


def test_notes_of_groups_say_how_they_were_measured_and_what_memory_they_took(pairs_record):
    notes = to_table(pairs_record).notes
    for words in (
        "latency over the baseline's, the first row of its group,",
        "Groups are measured one after the other",
        "by group, 500 MiB (rtdetr_r18), 500 MiB (yolov8s).",
        "of the fastest baseline (null runner).",
        "AP, AP50, AP S: a dash until",
        "a ratio of throughputs. The paper prints whole FPS, so its ratio is known to within 1.3 %.",
        "TensorRT 10.7, FP16. Figures of this CPU are not Jetson figures",
    ):
        assert any(words in note for note in notes)
    assert not any("Warning" in note for note in notes)
    heavy = replace(pairs_record, groups=(pairs_record.groups[0], MeasuredGroup("yolov8s", 6145.0)))
    assert "Warning: the process took more than 6 GiB with yolov8s." in to_table(heavy).notes


def test_unlike_input_sizes_get_a_column(pairs_record):
    rows = tuple(replace(row, input_hw=(512, 1024)) if "yolo" in row.model else row for row in pairs_record.rows)
    table = to_table(replace(pairs_record, rows=rows, input_hw=None))
    assert [row[1] for row in table.rows] == ["640x640", "640x640", "1024x512", "1024x512"]
    assert "FP32, input sizes as listed, 8 rounds" in table.title


def test_the_papers_columns_name_no_device_where_it_timed_nothing(pairs_record):
    rows = tuple(replace(row, paper={"ap_baseline": 37.9, "ap": 39.2}) for row in pairs_record.rows)
    table = to_table(replace(pairs_record, rows=rows))
    assert [column.full_title for column in table.columns if column.source] == ["AP without it paper", "AP paper"]
    assert not any("Orin" in note for note in table.notes)


def test_the_picture_is_a_readable_png_for_any_rows(record, tmp_path):
    faster = make_row("rtdetr_r18_x", None, [0.9 * sample for sample in record.rows[0].samples_ms])
    for name, made in {"a": record, "b": replace(record, rows=(*record.rows, faster))}.items():
        write_picture(made, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width > 1000
            assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "cpu", ["Test CPU", "A Processor Whose Vendor Gave It a Very Long Marketing Name With Many Words @ 2.70GHz"]
)
def test_no_label_of_the_picture_is_cut_off_or_overlaps_another(record, cpu):
    slower = [1.61 * sample for sample in record.rows[0].samples_ms]
    faster = [0.9 * sample * (1 + 0.02 * (i % 3)) for i, sample in enumerate(record.rows[0].samples_ms)]
    rows = (*record.rows, make_row("a", "vanilla", slower, 17.74), make_row("b", "area", faster, 12.7))
    figure = draw(replace(record, rows=rows, machine={**record.machine, "cpu": cpu}))
    assert_readable(figure)


@pytest.mark.parametrize("width_in", [9, 4.6])
@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_the_picture_of_pairs_is_readable_with_few_and_with_many(record, count, width_in):
    detectors = {f"fasterrcnn_r{i}": (100.0 + 9 * i, 1 + i * i / 150, (60 + i, 60 - i)) for i in range(count)}
    figure = draw(as_pairs(record, detectors), width_in)
    assert_readable(figure)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == count
    second_line = "\nover fasterrcnn_r0" if count > 1 else ""
    assert names[0] == f"fasterrcnn_r0_fine{second_line}"
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts())
    assert "paper's Table 1, not measured here" in said
    assert "a ratio of throughputs" in said


@pytest.mark.parametrize("width_in", [9, 4.6])
def test_the_picture_of_unlike_inputs_without_the_papers_marks_is_readable(record, width_in):
    names = ["semantic_fpn_r50", "fasterrcnn_r50 (beside adafpn)", "yolov10s (ultralytics export)"]
    made = as_pairs(
        record, {name: (900.0, ratio, (1, 1)) for name, ratio in zip(names, (1.6, 0.97, 1.01), strict=True)}
    )
    sizes = dict(zip(names, [(512, 1024), (800, 800), (640, 640)], strict=True))
    rows = [replace(row, paper=None, input_hw=sizes[row.baseline]) for row in made.rows]
    rows[3] = replace(rows[3], model="fasterrcnn_r50_adafpn")
    rows[5] = replace(rows[5], model="yolov10s")
    figure = draw(replace(made, rows=tuple(rows), input_hw=None), width_in)
    assert_readable(figure)
    names = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert names == [
        "semantic_fpn_r50_fine over semantic_fpn_r50, 1024x512",
        "fasterrcnn_r50_adafpn over fasterrcnn_r50 (beside adafpn), 800x800",
        "yolov10s over yolov10s (ultralytics export), 640x640",
    ]
    assert len(figure.legends[0].get_texts()) == 1


def assert_readable(figure):
    figure.canvas.draw()
    axes = figure.axes[0]
    texts = [*axes.texts, *axes.get_yticklabels(), *figure.texts, *figure.legends[0].get_texts(), axes.xaxis.label]
    boxes = [text.get_window_extent() for text in texts]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []


def test_int8_on_a_cpu_is_told_from_a_jetsons(record):
    host = to_table(replace(record, precision="int8"))
    assert any("INT8 on this CPU is no figure of a Jetson" in line for line in host.brief)
    assert "INT8" in host.title
    device = to_table(as_on_a_device(replace(record, precision="int8")))
    assert not any("on this CPU" in line for line in [*device.brief, *device.notes])
