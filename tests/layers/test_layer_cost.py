import json

import engine_files as files
import pytest

from fine_edge.errors import ArtifactError
from fine_edge.layers.cost import FineCost, read_layers, to_json
from fine_edge.layers.layer import part_sums
from fine_edge.layers.sources import from_trtexec
from fine_edge.layers.tables import cost_table, draw, parts_table


def test_sums_by_part_in_the_order_of_data_with_fines_details(fine):
    sums = {total.title: total for total in part_sums(fine)}
    assert list(sums) == ["backbone", "FINE", "FINE: attention", "FINE: modulation", "decoder", "layout copies"]
    assert (sums["FINE"].kernels, sums["FINE"].ms) == (2, pytest.approx(1.6))
    assert sums["FINE"].percent == pytest.approx(100 * 1.6 / 7.8)
    assert sums["layout copies"].ms == pytest.approx(0.1)
    assert sums["FINE: modulation"].written_mib == pytest.approx(512 * 80 * 80 * 2 / 2**20)


def test_cost_tells_fines_own_layers_from_what_changed_elsewhere(fine, baseline):
    cost = FineCost(fine, baseline)
    assert (cost.own.kernels, cost.own.ms) == (2, pytest.approx(1.6))
    assert (cost.total.kernels, cost.total.ms) == (2, pytest.approx(0.8))
    by_part = {difference.title: difference for difference in cost.by_part}
    assert by_part["encoder"].kernels == -1
    assert by_part["layout copies"].ms == pytest.approx(0.1)
    assert by_part["decoder"].ms == pytest.approx(0.1)
    assert "FINE's own kernels: +2 kernels, +1.600 ms" in cost.summary()
    assert "elsewhere: +0 kernels, -0.800 ms" in cost.summary()


def test_parts_other_than_details_add_up_to_all(fine, baseline):
    for profile in (fine, baseline):
        modules = [total for total in part_sums(profile) if total.part.module != "fine" or not total.part.detail]
        assert sum(total.kernels for total in modules) == len(profile.layers)
        assert sum(total.percent for total in modules) == pytest.approx(100)


def test_tables_name_their_source_and_what_was_mixed(fine, baseline):
    table = parts_table(fine)
    assert [column.title for column in table.columns][1:4] == ["Kernels", "Time (ms)", "Share (%)"]
    assert table.rows[1] == ["FINE", "2", "1.600", "20.5", "6.45", "-"]
    assert table.rows[2][0] == "· attention"
    notes = " ".join(table.notes)
    assert "__myl_ReshMulConc_myl0_4" in notes
    assert "15.4 % of the time" in notes
    rows = {row[0]: row for row in cost_table(FineCost(fine, baseline)).rows}
    assert rows["FINE"][1:7] == ["0", "2", "+2", "0.000", "1.600", "+1.600"]
    assert rows["all"][1:7] == ["3", "5", "+2", "7.000", "7.800", "+0.800"]


def test_an_untimed_engine_has_no_time_columns(tmp_path, fine):
    untimed = from_trtexec(files.write_layers_json(tmp_path / "l.json", files.BASELINE))
    assert "Time (ms)" not in [column.title for column in parts_table(untimed).columns]
    table = cost_table(FineCost(fine, untimed))
    assert not any("ms" in column.title for column in table.columns)
    assert any("Only one of the two was timed" in note for note in table.notes)


def test_a_document_reads_back(tmp_path, fine, baseline):
    (tmp_path / "d.json").write_text(json.dumps(to_json(fine, baseline)))
    assert read_layers(tmp_path / "d.json") == (fine, baseline)
    (tmp_path / "d.json").write_text(json.dumps(to_json(fine)))
    assert read_layers(tmp_path / "d.json") == (fine, None)
    older = {name: value for name, value in to_json(fine).items() if name != "remarks"}
    (tmp_path / "d.json").write_text(json.dumps(older))
    assert read_layers(tmp_path / "d.json") == (fine, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(format=9),
        lambda d: d.pop("layers"),
        lambda d: d["layers"][0].update(median_ms="quick"),
        lambda d: d["layers"][0].update(part={"module": "tail", "detail": ""}),
        lambda d: d["layers"][0].update(written_bytes=-1),
        lambda d: d["layers"][0].update(onnx_nodes=None),
        lambda d: d.update(baseline="none"),
        lambda d: d.update(remarks="none"),
    ],
)
def test_a_broken_document_gives_one_line(tmp_path, fine, change):
    data = to_json(fine)
    change(data)
    (tmp_path / "d.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError) as caught:
        read_layers(tmp_path / "d.json")
    assert len(str(caught.value).splitlines()) == 1


def test_no_label_of_the_picture_is_cut_off(fine):
    figure = draw(fine)
    figure.canvas.draw()
    axes = figure.axes[0]
    for text in (*axes.texts, *axes.get_yticklabels(), *figure.texts, axes.xaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
    assert "1.600 ms, 20.5 %" in [text.get_text() for text in axes.texts]
