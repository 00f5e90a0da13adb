import contextlib
import json
from dataclasses import replace
from pathlib import Path

import engine_files as files
import pytest
import trtexec_logs as logs
from hypothesis import given
from hypothesis import strategies as st
from published import published

from fine_edge.engine.manifest import Manifest, layers_path, manifest_path
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.engine.rtx_log import kernels_in
from fine_edge.errors import ArtifactError, RecordError
from fine_edge.graph.parts import Part
from fine_edge.layers.layer import REFORMAT, attribute, nodes_in_name, whole
from fine_edge.layers.layer_info import read_layer_info
from fine_edge.layers.sources import from_trtexec, joined
from fine_edge.layers.tables import parts_table
from fine_edge.trtexec.exported import InferenceMedians, read_medians, read_profile, read_times


def manifest(activation_mib):
    return Manifest(
        model="m",
        onnx_file="m.fp16.onnx",
        onnx_sha256="ab" * 32,
        engine_sha256="cd" * 32,
        options=BuildOptions(),
        platform=Platform(tensorrt="10.7.0", gpu="Orin", sm=87),
        plugins_sha256=(),
        workspace_mib=None,
        power_mode=None,
        timing_cache_sha256=None,
        kernels=5,
        fused_attention=1,
        activation_mib=activation_mib,
        weights_mib=None,
        build_s=1.0,
        built_at="2026-01-01T00:00:00+00:00",
        built_by="fine_edge",
        versions={},
    )


def test_layers_have_nodes_parts_and_bytes(tmp_path):
    conv, copy, attention, modulate, head = read_layer_info(
        files.write_layers_json(tmp_path / "l.json", files.FINE)
    ).layers
    assert conv.onnx_nodes == ("/detector/backbone/stem.0/Conv", "/detector/backbone/stem.0/Relu")
    assert (conv.part, conv.written_bytes, conv.weights_bytes) == (
        Part("backbone"),
        32 * 320 * 320 * 2,
        864 * 2 + 32 * 4,
    )
    assert (copy.part, copy.written_bytes) == (REFORMAT, 256 * 400 * 4)
    assert (attention.part, attention.is_mixed) == (Part("fine", "attention"), False)
    assert (modulate.part, modulate.is_mixed) == (Part("fine", "modulation"), True)
    assert (head.part, head.weights_bytes) == (Part("decoder"), None)


def test_times_join_by_name_and_the_median_counts(fine):
    assert [layer.median_ms for layer in fine.layers] == files.FINE_MS
    assert sum(layer.percent for layer in fine.layers) == pytest.approx(100)


def test_constants_that_layers_share_count_once(tmp_path):
    shared = files.tensor("w", 256, 256)
    layers = [files.layer(name, "gemm", [], [], Constants=[shared]) for name in ("a", "b")]
    first, second = read_layer_info(files.write_layers_json(tmp_path / "l.json", layers)).layers
    assert (first.weights_bytes, second.weights_bytes) == (256 * 256 * 2, 0)


def test_dynamic_and_unknown_tensors_have_no_bytes(tmp_path):
    layers = [
        files.layer("a", "kgen", [], [files.tensor("x", -1, 3)]),
        files.layer("b", "kgen", [], [files.tensor("x", 1, 3, kind="Unknown format")]),
        files.layer("c", "kgen", [], [files.tensor("x", kind="Int64")]),
    ]
    found = read_layer_info(files.write_layers_json(tmp_path / "l.json", layers)).layers
    assert [layer.written_bytes for layer in found] == [None, None, 8]


def test_repeated_names_take_times_in_order_and_foreign_ones_stay_as_layers(tmp_path):
    twice = [files.layer("same", "kgen", ["/detector/backbone/Conv"], []) for _ in range(2)]
    layers = read_layer_info(files.write_layers_json(tmp_path / "l.json", twice)).layers
    times = [("same", 10.0), ("same", 30.0), ("Reformatting CopyNode for Output Tensor 0 to x", 1.0)]
    (first, second, copy), (remark,) = joined(layers, times, Path("p.json"))
    assert remark == "1 timed layers (2.4 % of the time) are not in the layer information: the files are of two builds."
    assert (first.median_ms, second.median_ms, copy.median_ms) == (10.0, 30.0, 1.0)
    assert copy.part == REFORMAT


def test_a_layer_without_a_time_stays_without(tmp_path):
    layers = read_layer_info(files.write_layers_json(tmp_path / "l.json", files.BASELINE)).layers
    found, remarks = joined(layers, [(files.CONV["Name"], 2.0)], Path("p.json"))
    assert remarks == ("2 layers have no time.",)
    assert [layer.median_ms for layer in found] == [2.0, None, None]


def test_files_of_two_engines_are_refused(tmp_path):
    layers = files.write_layers_json(tmp_path / "l.json", files.FINE)
    other = files.write_profile_json(tmp_path / "p.json", files.BASELINE, files.BASELINE_MS)
    with pytest.raises(ArtifactError, match="the same engine"):
        from_trtexec(layers, other)


def test_times_give_compute_and_latency(tmp_path):
    times = read_times(files.write_times_json(tmp_path / "t.json", [7.0, 8.0, 9.0]))
    assert times.compute_median_ms == 8.0
    assert times.latency_median_ms == pytest.approx(8.3)


@pytest.mark.parametrize(("text", "latency_ms"), [(logs.FINE, 15.042), (logs.WAITING, None), (logs.UNCOPIED, None)])
def test_the_log_of_a_run_gives_its_medians(tmp_path, text, latency_ms):
    log = logs.write(tmp_path / "run.log", text)
    found = from_trtexec(files.write_layers_json(tmp_path / "l.json", files.FINE), times_path=log)
    assert found.latency_ms == latency_ms
    assert found.compute_ms == (30.7285 if text == logs.WAITING else 14.6934)
    notes = " ".join(parts_table(found).brief)
    assert ("H2D" in notes) is (latency_ms is not None)
    assert f"compute {found.compute_ms:.3f} ms" in notes


@pytest.mark.parametrize("h2d_ms", [0.0, 6.0])
def test_times_without_copies_or_with_a_wait_in_them_are_no_latency(tmp_path, h2d_ms):
    """Without transfers trtexec repeats the compute time as the latency."""
    query = {"h2dMs": h2d_ms, "computeMs": 3.48, "d2hMs": 0, "latencyMs": 3.48 + h2d_ms}
    (tmp_path / "t.json").write_text(json.dumps([query] * 3))
    assert read_medians(tmp_path / "t.json") == InferenceMedians(3.48, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (logs.BUILDER, "holds the build of an engine and no inference"),
        (logs.FINE + logs.FINE, "holds 2 runs, one is needed"),
        (logs.FINE.partition("Latency: ")[0], "was cut before the end"),
    ],
)
def test_a_log_without_times_of_one_run_is_refused(tmp_path, text, words):
    with pytest.raises(RecordError, match=words):
        read_medians(logs.write(tmp_path / "run.log", text))


def test_old_profiles_without_medians_give_averages(tmp_path):
    (tmp_path / "p.json").write_text('[{"count": 3}, {"name": "a", "timeMs": 6, "averageMs": 2, "percentage": 100}]')
    assert read_profile(tmp_path / "p.json") == [("a", 2.0)]


def test_names_with_raw_control_characters_are_read(tmp_path):
    text = '[{"count": 1}, {"name": "a\x1fb", "timeMs": 1, "averageMs": 1, "medianMs": 1, "percentage": 100}]'
    (tmp_path / "p.json").write_text(text)
    assert read_profile(tmp_path / "p.json") == [("a\x1fb", 1.0)]


def test_names_alone_need_times_which_tell_what_ran(tmp_path):
    names = ["/encoder/layers.0/fc1/MatMul", "reshape_after_/encoder/layers.0/fc1/MatMul", "/Constant_5_output_0"]
    (tmp_path / "l.json").write_text(json.dumps({"Layers": names, "Bindings": ["image"]}))
    with pytest.raises(ArtifactError, match=r"holds names only.*--profilingVerbosity=detailed, or .* --profile"):
        from_trtexec(tmp_path / "l.json")
    profile = files.write_profile_json(tmp_path / "p.json", [{"Name": name} for name in names], [0.5, 0, 0])
    found = from_trtexec(tmp_path / "l.json", profile)
    assert (whole(found).kernels, whole(found).ms, whole(found).written_mib) == (1, 0.5, None)
    assert "names only" in found.remarks[0]


# The end of a ResNet18 of TensorRT 10.1: the classifier's weights are inputs that nobody writes.
POOLED = files.tensor("pooled", 1, 512, 1, 1)
RESHAPED = files.tensor("Reformatted Input Tensor 0 to {ForeignNode[fc.weight]}", 1, 512, 1, 1)
FC = files.tensor("__mye519_dconst", 512, 1000)
RESNET_END = [
    files.layer(
        "/avgpool/GlobalAveragePool", "CaskPooling", [], [POOLED], Inputs=[files.tensor("input", 1, 512, 7, 7)]
    ),
    files.layer("Reformatting CopyNode for Input Tensor 0 to fc", "NoOp", [], [RESHAPED], Inputs=[POOLED]),
    files.layer("dummy_shape_call__mye548_0_myl24_0", "shape_call", [], []),
    files.layer(
        "__myl_MulSumAdd_myl24_1",
        "kgen",
        ["/fc/Gemm"],
        [files.tensor("output", 1, 1000)],
        Inputs=[files.tensor("fc_bias _ ONNXTRT_Broadcast_constantHalf", 1, 1000), FC, RESHAPED],
    ),
]


@pytest.mark.parametrize(
    ("suffix", "bindings", "weights"),
    [
        ("", ["input", "output"], 512 * 1000 * 2 + 1000 * 2),
        (" [profile 1]", ["input", "output", "input [profile 1]", "output [profile 1]"], 512 * 1000 * 2 + 1000 * 2),
        ("", [], None),  # which inputs are given is not told, so none is taken for a constant
    ],
)
def test_inputs_that_nobody_gives_are_constants_and_views_are_no_kernels(tmp_path, suffix, bindings, weights):
    layers = [layer | {"Name": f"{layer['Name']}{suffix}"} for layer in RESNET_END]
    both = [*RESNET_END, *layers] if suffix else layers
    (tmp_path / "l.json").write_text(json.dumps({"Layers": both, "Bindings": bindings}))
    info = read_layer_info(tmp_path / "l.json", profile=1 if suffix else 0)
    assert [layer.is_kernel for layer in info.layers] == [True, False, False, True]
    assert [layer.weights_bytes for layer in info.layers] == [None, None, None, weights]
    assert [layer.written_bytes for layer in info.layers] == [1024, 0, 0, 2000]
    assert info.remarks == (("The engine has 2 optimisation profiles; profile 1 is shown.",) if suffix else ())
    # The engine's manifest, bench and matrix count by the same rule.
    assert len(kernels_in((tmp_path / "l.json").read_text())) == 2


def test_constant_layers_are_constants_and_no_kernels(tmp_path):
    weights = files.tensor("w", 256, 256)
    layers = [
        files.layer("w", "Constant", [], [weights]),
        files.layer("a", "gemm", [], [files.tensor("y", 256)], Inputs=[files.tensor("images", 256), weights]),
    ]
    found = from_trtexec(files.write_layers_json(tmp_path / "l.json", layers))
    assert (whole(found).kernels, whole(found).weights_mib, whole(found).written_mib) == (1, 0.125, 512 / 2**20)
    assert found.remarks == ()


def test_a_product_of_one_operand_has_weights_that_are_not_listed(tmp_path):
    product = files.layer(
        "Y\n_myl0_0", "gemm", ["Y"], [files.tensor("logits", 8, 8)], Inputs=[files.tensor("images", 8)]
    )
    found = from_trtexec(files.write_layers_json(tmp_path / "l.json", [product]))
    assert whole(found).weights_mib is None
    assert found.remarks == (r"The weights of Y\n_myl0_0 are not in the file: constants are more than what is shown.",)


def test_files_of_two_builds_are_joined_without_numbers_and_say_so(tmp_path):
    layers = files.write_layers_json(tmp_path / "l.json", RESNET_END)
    names = [layer["Name"].replace("myl24", "myl7").replace("mye548", "mye33") for layer in RESNET_END]
    profile = files.write_profile_json(tmp_path / "p.json", [{"Name": name} for name in names], [1.0, 0, 0.002, 0.5])
    found = from_trtexec(layers, profile)
    assert [layer.median_ms for layer in found.layers] == [1.0, 0, 0.002, 0.5]
    assert found.remarks == (
        "2 layers are joined with times of other numbers (_myl24_1), in order: the files are of two builds.",
    )
    profile = files.write_profile_json(tmp_path / "p.json", [{"Name": f"{names[0]} [profile 2]"}], [1.0])
    with pytest.raises(ArtifactError, match="no layers of optimisation profile 2"):
        from_trtexec(layers, profile)
    with pytest.raises(ArtifactError, match=r"times of layers .*--profile"):
        from_trtexec(profile)


def test_published_files_give_their_figures():
    """Kernels and MiB of constants of whole files; another engine's times are refused."""
    folder = published("data", "jetson_public")
    torch_trt = folder / "fuzzylabs" / "sample_resnet18_trt_engine_info.json"
    resnet = [folder / "fuzzylabs" / f"desktop_resnet18_fp16.{kind}.json" for kind in ("graph", "profile")]
    detr = [folder / "farabimahmud" / f"detr-{kind}.json" for kind in ("layer-info", "profile")]
    for paths, kernels, ms, weights_mib in (
        (resnet, 24, 0.359, 22.29),
        (resnet[:1], 24, None, 22.29),
        ([torch_trt], 24, None, 22.29),
        ([folder / "vdavid21" / "layers_2048_fp16.json"], 1, None, None),
        (detr, 500, 4.158, None),
    ):
        total = whole(from_trtexec(*paths))
        assert total.kernels == kernels
        assert total.ms == pytest.approx(ms, abs=5e-4)
        assert total.weights_mib == pytest.approx(weights_mib, abs=5e-3)
    for other in (resnet[1], folder / "vdavid21" / "mobilenetv2_fp16_profile.json"):
        with pytest.raises(ArtifactError, match="take both from the same engine"):
            from_trtexec(torch_trt, other)


def test_the_manifest_beside_our_engine_tells_its_activation_memory(tmp_path):
    engine = tmp_path / "m.fp16.engine"
    text = manifest(activation_mib=29.6).to_text()
    manifest_path(engine).write_text(text, encoding="utf-8")
    layers = files.write_layers_json(layers_path(engine), files.FINE)
    assert from_trtexec(layers).activation_mib == 29.6
    assert not any("batches" in remark for remark in from_trtexec(layers).remarks)
    several = replace(manifest(activation_mib=29.6), options=BuildOptions(batches=(1, 4, 8)))
    manifest_path(engine).write_text(several.to_text(), encoding="utf-8")
    said = "built for batches of 1 to 8: kernels are those for 4, memory is that of 8"
    assert from_trtexec(layers).remarks[-1] == said
    manifest_path(engine).write_text(text.replace("29.6", "19.6"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="edited"):
        from_trtexec(layers)


BROKEN = [
    "", "[]", "{}", "null", "3", '"x"', '{"Layers": 3}', '{"Layers": []}', '{"Layers": [3]}', '{"Layers": [{}]}',
    '{"Layers": [{"Name": "a", "Outputs": 3}]}', '{"Layers": [{"Name": "a", "Outputs": [{"Dimensions": "x"}]}]}',
    '{"Layers": [{"Name": "a", "Weights": {"Type": "Half"}}]}', '[{"count": 1}]', '[{"name": "a"}]', "[[]]", "[1]",
    '[{"name": "a", "medianMs": "fast"}]', '[{"name": "a", "medianMs": NaN}]', '[{"name": "a", "medianMs": -1}]',
    '{"Layers": [{"Name": "a", "Inputs": [3]}], "Bindings": ["x"]}', '{"Layers": ["a", 3]}',
    '{"Layers": [{"Name": "a", "Weights": {"Type": "Half", "Count": 1e999}}]}', '[{"name": "a", "medianMs": null}]',
    '[{"computeMs": 1}]', '[{"computeMs": [], "latencyMs": 1}]', "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("read", [read_layer_info, read_profile, read_times])
@pytest.mark.parametrize("text", BROKEN)
def test_broken_files_give_one_line(tmp_path, read, text):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read(tmp_path / "f.json")
    assert len(str(caught.value).splitlines()) == 1
    assert "->" in str(caught.value)


@pytest.mark.parametrize("read", [read_layer_info, read_profile, read_times])
def test_missing_files_give_one_line(tmp_path, read):
    with pytest.raises(ArtifactError, match="no such file"):
        read(tmp_path / "none.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Layers", "Bindings", "Name", "Inputs", "Outputs", "Constants", "Dimensions", "name", "medianMs"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(data=JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "f.json"
    path.write_text(json.dumps(data))
    for read in (read_layer_info, read_profile, read_times):
        with contextlib.suppress(ArtifactError):  # the one kind of error there may be
            read(path)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("/a/Conv + PWN(/a/Sigmoid, /a/Mul)", ("/a/Conv", "/a/Sigmoid", "/a/Mul")),
        ("{ForeignNode[/a/MatMul.../b/Add]}", ("/a/MatMul", "/b/Add")),
        ("/detector/encoder/project.0/Conv_myl0_44", ("/detector/encoder/project.0/Conv",)),
        ("/a/value/MatMul+/a/key/MatMul_myl0_3", ("/a/value/MatMul", "/a/key/MatMul")),
        ("__myl_FcAdd_myl0_37", ()),
    ],
)
def test_nodes_are_found_in_names(name, nodes):
    assert nodes_in_name(name) == nodes


def test_without_metadata_the_name_decides():
    assert attribute("/detector/decoder.0/fc1/MatMul_myl0_7", "gemm", ()) == (Part("decoder"), False)
    assert attribute("__myl_FcAdd_myl0_37", "kgen", ())[0] == Part("other")
