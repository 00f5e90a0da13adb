"""The paper's figures, typed a second time from its tables as they stand there."""

import pytest

from fine_edge.zoo.catalog import CATALOG
from fine_edge.zoo.paper import DOWN_ROWS, ROWS, rows_of

# #Params (M), FLOPs (G), FPS, AP, AP50, AP small, medium, large.
TABLE_1 = """
rtdetr_r18           20.2  61.7  80 46.5 63.8 28.4 49.8 63.0
rtdetr_r50           42.9 138.0  40 52.8 71.0 34.2 57.3 70.0
yolov8s              11.2  28.6 189 45.0 61.8 26.0 49.9 61.0
yolov10s              8.1  24.8 173 46.2 63.0 26.9 51.1 63.7
yolov12s              9.1  19.4 112 47.6 64.5 28.3 52.7 65.9
rtdetr_r18_fine      21.2  62.9  78 47.3 64.4 30.1 50.8 63.5
rtdetr_r50_fine      44.0 139.2  40 53.3 71.3 35.6 57.6 70.4
yolov8s_fine         12.3  29.6 177 45.8 62.7 27.0 51.2 62.1
yolov10s_fine         9.0  25.7 153 46.7 63.6 28.2 51.4 63.2
yolov12s_fine        10.5  21.2 106 48.2 65.1 30.6 53.3 65.2
fasterrcnn_r50       41.8 134.4   - 37.0 58.5 21.1 40.3 48.2
retinanet_r50        34.0 151.5   - 36.4 55.7 19.1 40.0 48.9
fcos_r50             32.3 128.2   - 39.2 58.2 22.1 42.4 51.3
fasterrcnn_r50_fine  42.8 135.5   - 39.1 60.8 23.3 42.6 50.4
retinanet_r50_fine   35.0 152.9   - 37.3 56.8 20.6 40.7 49.4
fcos_r50_fine        33.3 129.6   - 39.8 58.7 23.3 43.1 51.2
"""
# #Params (M), FLOPs (G), AP before and after.
TABLE_2 = """
fasterrcnn_r50_sni     41.8 134.4 37.0 37.7
fasterrcnn_r50_fapn    48.5 143.6 37.9 39.2
fasterrcnn_r50_adafpn  45.6 159.4 37.8 39.0
fasterrcnn_r50_mgc     44.4 161.8 37.0 38.3
fasterrcnn_r50_fine    42.8 135.5 37.0 39.1
rtdetr_r18_sni         20.2  61.7 38.7 38.5
rtdetr_r18_fapn        21.9  71.8 38.7 39.0
rtdetr_r18_adafpn      22.9  82.8 38.7 38.3
rtdetr_r18_mgc         21.1  68.7 38.7 38.6
rtdetr_r18_fine        21.2  62.9 38.7 39.7
"""
# #Params (M), FLOPs (G) and Mem (MB), of FINE what it adds; FPS, latency (ms), AP.
TABLE_3 = """
rtdetr_r18              20.2 61.74   64.50 80 12.81 38.7
rtdetr_r18_fine_vanilla  1.0  18.0 1223.48 57 17.74 39.5
rtdetr_r18_fine_window   1.0   8.9   65.11 68 15.05 39.7
rtdetr_r18_fine_area     1.0  10.0   65.67 69 14.71 39.2
rtdetr_r18_fine_linear   1.0   7.0   18.42 64 16.05 39.0
rtdetr_r18_fine          1.0   1.2    1.17 78 13.24 39.7
"""
# #Params (M), FLOPs (G), then what each task has.
TABLE_7 = """
maskrcnn_r50           44.4 134.4 37.9 34.6
maskrcnn_r50_fine      45.5 135.5 39.7 35.5
semantic_fpn_r50       28.5  90.9 74.5
semantic_fpn_r50_fine  30.1  91.7 76.4
panoptic_fpn_r50       46.0 156.7 40.2 77.8 49.3
panoptic_fpn_r50_fine  47.6 157.3 40.9 78.5 50.0
"""
# FLOPs (G), AP50.
TABLE_8 = """
yolov5s      37.5 45.9
yolov5s_fine 40.8 46.9
yolov6s      72.2 44.8
yolov6s_fine 74.5 45.6
yolov8s      44.7 46.3
yolov8s_fine 49.2 47.2
"""
SIDES = {"rtdetr": 640, "yolov": 640, "faster": 800, "retina": 800, "fcos": 800, "maskr": 800, "panop": 640}


def printed(table):
    lines = [line.split() for line in table.split("\n") if line]
    return {name: [None if cell == "-" else float(cell) for cell in cells] for name, *cells in lines}


def rows(table):
    return {row.model: row for row in ROWS if row.table == table}


def accuracy(row):
    return list(row.accuracy.values())


def input_hw(model):
    if model.startswith("semantic"):
        return (512, 1024)
    side = next(side for start, side in SIDES.items() if model.startswith(start))
    return (side, side)


@pytest.mark.parametrize(
    ("table", "text"), [("1", TABLE_1), ("2", TABLE_2), ("3", TABLE_3), ("7", TABLE_7), ("8", TABLE_8)]
)
def test_a_table_has_the_papers_rows_in_the_papers_order(table, text):
    assert [row.model for row in ROWS if row.table == table] == list(printed(text))
    sides = [(800, 800) if table == "8" else input_hw(model) for model in rows(table)]
    assert [row.input_hw for row in rows(table).values()] == sides


def test_table_1():
    found = {m: [row.params_m, row.flops_g, row.fps, *accuracy(row)] for m, row in rows("1").items()}
    assert found == printed(TABLE_1)
    assert {tuple(row.accuracy) for row in rows("1").values()} == {("ap", "ap50", "ap_s", "ap_m", "ap_l")}


def test_table_2():
    assert {m: [row.params_m, row.flops_g, *accuracy(row)] for m, row in rows("2").items()} == printed(TABLE_2)


def test_table_3_as_sums_of_what_the_paper_adds():
    base, *others = printed(TABLE_3).values()
    sums = [base, *([*(b + o for b, o in zip(base[:3], other[:3], strict=True)), *other[3:]] for other in others)]
    for row, figures in zip(rows("3").values(), sums, strict=True):
        assert [row.params_m, row.flops_g, row.mem_mb, row.fps, row.latency_ms, row.ap] == pytest.approx(figures)


def test_tables_7_and_8():
    assert {m: [row.params_m, row.flops_g, *accuracy(row)] for m, row in rows("7").items()} == printed(TABLE_7)
    assert {m: [row.flops_g, *accuracy(row)] for m, row in rows("8").items()} == printed(TABLE_8)
    assert {row.params_m for row in rows("8").values()} == {None}


def test_table_6_is_about_an_operator():
    found = [(row.model, row.params_m, row.flops_g, row.ap) for row in DOWN_ROWS]
    assert found == [("dwconv", 6.14e-3, 2.46e-3, 38.1), ("max", 0, 0, 38.2), ("avg", 0, 0, 38.2)]


def test_every_row_is_of_a_model_of_the_zoo_and_every_model_but_the_small_one_has_a_row():
    assert {row.model for row in ROWS} == set(CATALOG) - {"fcos_mobilenetv3", "fcos_mobilenetv3_fine"}
    assert len({(row.table, row.model) for row in ROWS}) == len(ROWS)


def test_rows_of_a_model_start_with_the_table_that_timed_it():
    assert [row.table for row in rows_of("rtdetr_r18_fine")] == ["3", "1", "2"]
    assert [row.table for row in rows_of("yolov8s")] == ["1", "8"]
    assert rows_of("yolov99") == ()


def test_json_has_the_columns_of_the_table_and_no_others():
    assert rows("8")["yolov5s"].to_json() == {
        "table": "8",
        "model": "yolov5s",
        "params_m": None,
        "flops_g": 37.5,
        "input_hw": [800, 800],
        "accuracy": {"ap50": 45.9},
    }
    assert {"fps", "latency_ms", "mem_mb"} < set(rows("3")["rtdetr_r18"].to_json())
