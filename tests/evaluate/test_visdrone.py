import pytest
from data_sets import detections

from fine_edge.errors import DataError
from fine_edge.evaluate.matching import count, judge
from fine_edge.evaluate.segment_data import CATEGORIES, read_data, read_visdrone

LINES = """10,20,30,40,1,4,0,0
100,20,5,6,1,1,0,2,

0,0,50,10,0,0,0,0
200,200,20,20,0,5,0,0
300,300,20,20,1,11,0,0
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0001.txt").write_text(LINES)
    (tmp_path / "0002.txt").write_text("")
    return tmp_path


def test_what_is_read(folder):
    data = read_visdrone(folder)
    assert data.images == {1: "0001.jpg", 2: "0002.jpg"}
    assert data.categories[4] == "car"
    assert len(data.categories) == len(CATEGORIES) == 10
    real = ~data.truth.crowd
    assert data.truth.boxes_xywh[real].tolist() == [[10, 20, 30, 40], [100, 20, 5, 6]]
    assert data.truth.category_ids[real].tolist() == [4, 1]
    assert int(data.truth.crowd.sum()) == 3 * 10


def test_what_lies_in_ignored_regions_does_not_count(folder):
    data = read_visdrone(folder)
    found = detections([(1, 4, (10, 20, 30, 40), 0.9), (1, 7, (5, 1, 8, 8), 0.9), (1, 7, (400, 1, 8, 8), 0.9)])
    counts = count(judge(data, found))
    assert (counts.tp, counts.fp, counts.fn) == (1, 1, 1)


def test_a_folder_is_read_as_visdrones(folder):
    assert read_data(folder).sha256 == read_visdrone(folder).sha256


def test_the_sha256_is_of_all_files(folder):
    before = read_visdrone(folder).sha256
    (folder / "0002.txt").write_text("1,1,1,1,1,1,0,0\n")
    assert read_visdrone(folder).sha256 != before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1,2,3", "line 1 has 3 columns, not the 8 of VisDrone-DET: left, top"),
        ("1,0,593,43,9,4,1,4,0,0", "line 1 has 10 columns, as annotations of VisDrone's videos"),
        ("1,2,3,4,1,1,0,0,0", "line 1 has 9 columns"),
        ("1,2,3,4,1", "line 1 has 5 columns"),
        ("1,2,3,4,1,1,0,0,\n1,2,3,4,1,1,0", "line 2 has 7 columns"),
        ("1 2 3 4 1 1 0 0", "line 1 has 1 columns"),
        ("1,nan,3,4,1,1,0,0", "line 1 is no object"),
        ("1,2,3,4,0.93,4,-1,-1", "line 1 has the score 0.93, as results have"),
        ("1,2,3,x,1,1,0,0", "line 1 is no object"),
        ("1,2,-3,4,1,1,0,0", "line 1 is no object .*is no box"),
        ("1,2,3,4,1,12,0,0", "line 1 has the category 12"),
        ("1,2,3,4,1,1.5,0,0", "line 1 has the category 1.5"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, says):
    (tmp_path / "a.txt").write_text(line)
    with pytest.raises(DataError, match=says):
        read_visdrone(tmp_path)


def test_marks_and_ends_of_lines_of_other_systems(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf10, 20, 30, 40, 1, 4, 0, 0\r\n100,20,5,6,1,1,0,2,\r\n")
    assert read_visdrone(tmp_path).truth.boxes_xywh.tolist() == [[10, 20, 30, 40], [100, 20, 5, 6]]


def test_no_annotations(tmp_path):
    with pytest.raises(DataError, match="holds no annotation files"):
        read_visdrone(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read_visdrone(tmp_path)
