import json

import numpy as np

from fine_edge import machine


def test_what_is_known_of_this_machine():
    here = machine.describe()
    assert set(machine.IDENTITY) <= set(here)
    assert here["cores"] >= 1
    assert here["memory_gib"] >= 1
    assert here["cpu"]
    assert here["libraries"]["numpy"] == np.__version__
    assert json.loads(json.dumps(here)) == here


def test_a_package_that_is_not_there_has_no_version():
    assert machine.version("no-such-package-anywhere") is None


def test_a_machine_is_like_itself_whatever_its_libraries():
    here = machine.describe()
    assert machine.unlike(here, {**here, "libraries": {}, "python": "3.10.0"}) == []


def test_every_identifying_field_tells_machines_apart():
    here = machine.describe()
    for key in machine.IDENTITY:
        assert machine.unlike(here, {**here, key: "another"}) == [f"{key}: {here[key]} / another"]
    assert len(machine.unlike(here, {})) == sum(here[key] is not None for key in machine.IDENTITY)
