"""Pictures, labels and results that are not what they seem."""

import os

from faults import Fault, check, each


def _pipe(folder):
    os.mkfifo(folder / "labels.json")
    return ["--data", str(folder / "labels.json"), "--detections", "x.json"]


FAULTS = [
    Fault("labels-are-a-pipe", "evaluate", _pipe, ("labels.json", "not a regular file")),
]


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)
