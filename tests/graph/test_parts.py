import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.graph.parts import MODULES, OTHER, Part, part_of, part_of_all


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/detector/backbone/stem.0.0/Conv", Part("backbone")),
        ("/detector/encoder/aifi.0/fc2/MatMul", Part("encoder")),
        ("/detector/encoder/Concat_1", Part("encoder")),
        ("/detector/encoder/fine.0/unify/Conv", Part("fine", "projections")),
        ("/detector/encoder/fine.0/down_low/AveragePool", Part("fine", "pooling")),
        ("/detector/encoder/fine.1/norm/LayerNormalization_2", Part("fine", "normalisation")),
        ("/detector/encoder/fine.1/query/MatMul", Part("fine", "projections")),
        ("/detector/encoder/fine.1/attention/Softmax", Part("fine", "attention")),
        ("/detector/encoder/fine.0/ffn_up/MatMul", Part("fine", "feed-forward")),
        ("/detector/encoder/fine.0/activation/Erf", Part("fine", "feed-forward")),
        ("/detector/encoder/fine.0/modulate/Resize", Part("fine", "modulation")),
        ("/detector/encoder/fine.0/Add", Part("fine", "glue")),
        ("/detector/selection/score/MatMul", Part("decoder")),
        ("/detector/decoder.2/Softmax", Part("decoder")),
        ("/detector/refine/Sigmoid", Part("decoder")),
        ("/postprocess/TopK", Part("postprocess")),
        ("/preprocess/Conv_columns", Part("preprocess")),
        ("graph_input_cast0", OTHER),
        ("", OTHER),
        ("/backbone", OTHER),  # an operator of that name, not a scope
    ],
)
def test_scopes_say_the_part(name, part):
    assert part_of(name) == part


def test_a_fused_kernel_belongs_to_the_part_with_most_nodes():
    fine = ["/e/fine.0/ffn_down/Add", "/e/fine.0/Add", "/e/fine.0/modulate/Mul", "/e/fine.0/modulate/Resize"]
    assert part_of_all(fine) == Part("fine", "modulation")
    assert part_of_all(["/encoder/Concat", *fine]) == Part("fine", "modulation")


def test_glue_and_unknown_nodes_decide_only_alone():
    assert part_of_all(["/e/fine.0/Add", "/e/fine.0/Reshape", "/e/fine.0/key/MatMul"]) == Part("fine", "projections")
    assert part_of_all(["/e/fine.0/Add", "cast"]) == Part("fine", "glue")
    assert part_of_all(["cast", "x"]) == OTHER
    assert part_of_all([]) == OTHER


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_name_has_a_part(names):
    assert part_of_all(names).module in MODULES
