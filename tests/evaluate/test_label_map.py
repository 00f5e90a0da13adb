import pytest

from fine_edge.errors import DataError
from fine_edge.evaluate.class_names import map_labels


def test_names_decide_not_numbers():
    labels = ("person", "bicycle", "traffic light")
    assert map_labels(labels, {90: "Traffic_Light", 3: "person"}) == {2: 90, 0: 3}


def test_letters_are_the_same_however_they_are_written():
    assert map_labels(("gru\u0308n", "STRASSE"), {1: "Gr\u00fcn", 2: "stra\u00dfe"}) == {0: 1, 1: 2}


def test_names_that_differ_can_be_named():
    assert map_labels(("motorbike", "tv"), {4: "motorcycle"}, {"Motorcycle": "Motorbike"}) == {0: 4}


def test_a_category_without_a_class_is_an_error_that_lists_both_sides():
    with pytest.raises(DataError) as error:
        map_labels(("person", "dog"), {1: "person", 2: "RBC"})
    assert "no class for 1 of 2 categories: 'RBC'" in str(error.value)
    assert "its classes without a category: 'dog'" in str(error.value)
    assert "--same CATEGORY=CLASS" in str(error.value)


def test_long_lists_are_cut():
    with pytest.raises(DataError, match=r"'c7' and 12 more"):
        map_labels(("x",), {n: f"c{n}" for n in range(20)})


def test_names_twice_are_an_error():
    with pytest.raises(DataError, match="more than one category is called 'dog'"):
        map_labels(("dog",), {1: "dog", 2: "Dog"})
    with pytest.raises(DataError, match="more than one class of the model is called 'dog' -> name each class apart"):
        map_labels(("dog", "DOG"), {1: "dog"})


def test_classes_that_share_a_name_nobody_asks_for_do_no_harm():
    assert map_labels(("N/A", "N/A", "dog"), {1: "dog"}) == {2: 1}


ROBOFLOW = {0: "cells", 1: "RBC", 2: "WBC"}


def test_a_root_without_objects_is_left_out_and_said(capsys):
    assert map_labels(("RBC", "WBC"), ROBOFLOW, used={1, 2}) == {0: 1, 1: 2}
    assert "left out" in (said := capsys.readouterr().err)
    assert "'cells'" in said
    assert map_labels(("RBC", "WBC"), {**ROBOFLOW, 0: "RBC"}, used={1}) == {0: 1, 1: 2}
    with pytest.raises(DataError, match="no class for 1 of 3 categories: 'cells'"):
        map_labels(("RBC", "WBC"), ROBOFLOW, used={0, 1})
    with pytest.raises(DataError, match="no class for 1 of 3 categories: 'cells'"):
        map_labels(("RBC", "WBC"), ROBOFLOW)


def test_a_category_without_objects_that_has_a_class_counts():
    assert map_labels(("RBC", "cells"), ROBOFLOW, used={1}) == {0: 1, 1: 0}


def test_pairs_work_beside_a_root():
    assert map_labels(("red", "WBC"), ROBOFLOW, {"RBC": "red"}, used={1, 2}) == {0: 1, 1: 2}
    assert map_labels(("RBC", "WBC"), ROBOFLOW, {"cells": "RBC"}, used={1, 2}) == {0: 1, 1: 2}


def test_a_pair_of_nobodys_name_is_an_error_that_lists_the_names():
    with pytest.raises(DataError, match="no category of the data set is called 'rcb'; there are 'RBC', 'WBC', 'cells'"):
        map_labels(("RBC", "WBC"), ROBOFLOW, {"rcb": "RBC"}, used={1})
    with pytest.raises(DataError, match="no class of the model is called 'red'; there are 'RBC', 'WBC'"):
        map_labels(("RBC", "WBC"), ROBOFLOW, {"RBC": "red"}, used={1})
