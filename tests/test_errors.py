import inspect

import pytest

from fine_edge import errors
from fine_edge.errors import ConfigError, FineEdgeError, ForeignModelError, MissingExtraError


def test_every_error_is_one_of_ours():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) == 13
    assert all(issubclass(kind, FineEdgeError) for kind in kinds)


def test_one_line_with_what_where_and_hint():
    error = FineEdgeError("the file is cut", where="a.onnx", hint="copy it again")
    assert str(error) == "a.onnx: the file is cut -> copy it again"
    assert (error.what, error.where, error.hint) == ("the file is cut", "a.onnx", "copy it again")


@pytest.mark.parametrize("what", ["two\nlines", "a\r\nb", "a\x0bb\u2028c", "  spread \t out "])
def test_always_one_line(what):
    text = str(FineEdgeError(what, where="here\nand there", hint="do\nthis"))
    assert len(text.splitlines()) == 1


def test_nothing_stands_where_nothing_is_known():
    assert str(FineEdgeError("broken")) == "broken"


def test_a_configuration_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def test_a_model_of_another_kind_is_a_type_error():
    assert issubclass(ForeignModelError, (ConfigError, TypeError))


def test_a_missing_extra_gives_the_install_line():
    assert str(MissingExtraError("torch", "export")) == "this needs torch -> pip install 'fine-edge[export]'"
