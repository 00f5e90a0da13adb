from fine_edge.jetson import sysfs


def test_text_loses_blanks_and_the_device_trees_nul(tmp_path):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson\0\n")
    assert sysfs.read_text(tmp_path / "model") == "NVIDIA Jetson"


def test_what_cannot_be_read_is_none(tmp_path):
    (tmp_path / "junk").write_bytes(b"\xff not a number")
    assert sysfs.read_text(tmp_path / "absent") is None
    assert sysfs.read_text(tmp_path) is None
    assert sysfs.read_int(tmp_path / "junk") is None
    assert sysfs.read_mhz(tmp_path / "absent") is None
    assert not sysfs.is_forbidden(tmp_path / "absent")


def test_hertz_become_megahertz(tmp_path):
    (tmp_path / "cur_freq").write_text("918000000\n")
    assert sysfs.read_mhz(tmp_path / "cur_freq") == 918.0


def test_entries_come_in_the_order_of_their_numbers(tmp_path):
    for index in (10, 2, 1):
        (tmp_path / f"zone{index}").mkdir()
    assert [path.name for path in sysfs.entries(tmp_path, "zone*")] == ["zone1", "zone2", "zone10"]
    assert sysfs.entries(tmp_path / "absent", "*") == []
