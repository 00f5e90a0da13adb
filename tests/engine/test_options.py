from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.engine.options import BuildOptions, read_recipe
from fine_edge.errors import ConfigError
from fine_edge.graph.input_size import InputSize

OPTIONS = st.builds(
    BuildOptions,
    precision=st.sampled_from(["fp16", "fp32"]),
    target=st.sampled_from(["tensorrt", "rtx-sm86"]),
    optimization_level=st.integers(0, 5),
    max_aux_streams=st.none() | st.integers(0, 7),
    workspace_mib=st.none() | st.integers(1, 8192),
    profiling_verbosity=st.sampled_from(["detailed", "layer_names_only", "none"]),
    plugins=st.lists(st.text(max_size=5)).map(tuple),
)


@given(OPTIONS)
def test_options_survive_json(options):
    assert BuildOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"precision": "int4"}, "known: fp16, fp16-weak, fp32, int8"),
        ({"target": "sm87"}, "known: tensorrt, rtx-sm86"),
        ({"optimization_level": 6}, "0 to 5"),
        ({"max_aux_streams": -1}, "-1 auxiliary streams cannot be"),
        ({"max_aux_streams": 0.5}, "max_aux_streams: expected int | null, got float"),
        ({"optimization_level": "3"}, "optimization_level: expected int, got str"),
        ({"optimization_level": None}, "optimization_level: expected int, got null"),
        ({"workspace_mib": 0}, "not positive"),
        ({"workspace_mib": True}, "workspace_mib: expected int | null, got bool"),
        ({"precision": "fp16-weak", "target": "rtx-sm86"}, "has no FP16 flag"),
        ({"keep_fp32": ["/a"]}, "a strongly typed graph says it itself"),
        ({"keep_fp32": "/a"}, "keep_fp32: expected array, got str"),
        ({"keep_fp32": [1]}, "keep_fp32[0]: expected str, got int"),
        ({"speed": 11}, "'speed' is unknown"),
        ({"input_size": {"height": 4, "width": 4, "depth": 4}}, "'depth' is unknown -> known: height, width, batch"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(values, words):
    with pytest.raises(ConfigError) as caught:
        BuildOptions.from_json(values)
    assert words in str(caught.value)


def test_layers_are_kept_in_fp32_by_the_weakly_typed_builder_alone():
    assert BuildOptions(precision="fp16-weak", keep_fp32=("/a",)).keep_fp32 == ("/a",)
    assert not BuildOptions(precision="fp16-weak").strongly_typed
    assert BuildOptions(precision="fp32").strongly_typed


def test_a_recipe_gives_its_options_and_no_recipe_the_defaults(tmp_path):
    (tmp_path / "m.json").write_text('{"model": "m", "build": {"optimization_level": 5}}')
    assert read_recipe("m", tmp_path) == BuildOptions(optimization_level=5)
    assert read_recipe("other", tmp_path) == BuildOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "the recipe is broken"),
        ('{"model": "m"}', "the recipe is broken"),
        ('{"model": "m", "build": 3}', "build: expected object, got int"),
        ('{"model": "n", "build": {}}', "recipe of 'n'"),
        ('{"model": "m", "build": {"optimization_level": 9}}', "0 to 5"),
    ],
)
def test_a_broken_recipe_is_one_line_that_names_the_file(tmp_path, text, words):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_recipe("m", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'm.json'}: ")
    assert words in str(caught.value)


def test_an_input_size_counts_and_engines_without_one_keep_their_key():
    sized = BuildOptions(input_size=InputSize(480, 640, 2))
    assert BuildOptions.from_json(sized.to_json()) == sized
    assert "input_size" not in BuildOptions().to_json()
    assert str(sized.input_size) == "2 x 480x640"


@pytest.mark.parametrize("size", [640, [1, 2], {"height": 4}, {"height": 4, "width": True}, {"height": 0, "width": 4}])
def test_an_input_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match="input"):
        BuildOptions.from_json({"input_size": size})
