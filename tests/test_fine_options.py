"""FINE's options: read from ``--fine``, in the names of models, and in what is made of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.cli import export, layers, parity
from fine_edge.cli.target import Target
from fine_edge.cli.zoo import main as zoo
from fine_edge.errors import ConfigError, UnknownModelError
from fine_edge.export.request import ExportRequest
from fine_edge.fine_options import PAPERS, FineOptions
from fine_edge.text import is_plain_name
from fine_edge.zoo.catalog import find, is_model, with_fine
from fine_edge.zoo.family import family_of

FCOS = "fcos_mobilenetv3_fine"


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("r=1,k=2,heads=16,down=max,modulation=direct,ffn=0", "_r1_k2_heads16_downmax_moddirect_ffn0"),
        (" ffn = 0 , k = 2 ", "_k2_ffn0"),
        ("attention=window,window=5,modulation=none", "_window_modnone_window5"),
        ("attention=area,areas=2,d=8", "_area_d8_areas2"),
        ("r=2,down=avg,modulation=residual,attention=aats,d=16", ""),
        ("heads=4,down=dwconv", "_heads4_downdwconv"),
    ],
)
def test_a_name_states_what_is_not_the_papers(text, suffix):
    entry = with_fine(FCOS, text)
    assert entry.name == FCOS + suffix
    assert find(entry.name) == entry
    assert entry.options == FineOptions.parse(text)
    assert FineOptions.parse(str(entry.options)) == entry.options if suffix else entry.options == PAPERS
    assert is_plain_name(entry.name)


@given(
    st.builds(
        FineOptions,
        r=st.integers(1, 64),
        k=st.none() | st.integers(1, 64),
        heads=st.none() | st.integers(1, 1024),
        down=st.sampled_from(["avg", "max", "dwconv"]),
        modulation=st.sampled_from(["residual", "direct", "none"]),
        ffn=st.none() | st.integers(0, 16),
    )
)
def test_names_and_options_are_one_to_one(options):
    assert FineOptions.of_suffix(options.suffix()) == options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no option of FINE.*attention=aats|vanilla"),
        ("heads", "'heads' is no option of FINE"),
        ("q=1", "'q=1' is no option of FINE.*ffn=N"),
        ("heads=four", "heads is 'four', it is a whole number"),
        ("heads=-4", "heads is '-4', it is a whole number"),
        ("k=nan", "k is 'nan'"),
        ("r=0", "r is 0, it can be 1 to 64"),
        ("heads=99999999999999999999", "it is a whole number"),
        ("heads=999999999", "heads is 999999999, it can be 1 to 1024"),
        ("down=min", "down is 'min', known: avg, max, dwconv"),
        ("modulation=\x1b[31m", r"modulation is '\\\\x1b\[31m', known"),
        ("r=1,r=2", "r is given twice"),
        ("heads=4,d=8", "heads and d both say"),
        ("attention=window,r=1", "r means nothing to attention window.*take attention=aats"),
        ("areas=2", "areas means nothing to attention aats"),
    ],
)
def test_wrong_options_are_one_line_with_what_there_is(text, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        with_fine(FCOS, text)
    assert caught.value.where == "--fine"
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_options_are_for_models_with_fine_alone(tmp_path):
    with pytest.raises(ConfigError, match=r"has no FINE to change.*name rtdetr_r18_fine"):
        with_fine("rtdetr_r18_sni", "r=1")
    with pytest.raises(ConfigError, match="has options of FINE in its name already"):
        with_fine(f"{FCOS}_r1", "heads=4")
    with pytest.raises(UnknownModelError, match="nearest: fcos_mobilenetv3_fine_r1_k2"):
        find(f"{FCOS}_k2_r1")
    assert [is_model(f"{FCOS}{end}") for end in ("", "_r1_k2", "_k2_r1", "_r1_r2", "_aats", "_r0", "_min")] == [
        *(True, True),
        *[False] * 5,
    ]
    (tmp_path / "a.onnx").touch()
    for name in (tmp_path / "a.onnx", tmp_path / "a.engine"):
        with pytest.raises(ConfigError, match="is a file and has its FINE"):
            Target.parse(str(name), "r=1")
    for main, argv in (
        (export.main, [FCOS, "--fine", "r=x"]),
        (parity.main, [FCOS, "--fine", "r=x"]),
        (layers.main, [FCOS, "--fine", "r=x"]),
        (zoo, ["--fine", "r=1"]),
    ):
        with pytest.raises(ConfigError, match="--fine"):
            main(argv)


def test_a_request_keeps_the_options_and_old_contracts_stay_valid():
    request = ExportRequest(with_fine(FCOS, "heads=4,modulation=direct").name)
    assert request.options()["fine"] == {"heads": 4, "modulation": "direct"}
    assert request.onnx_name() == f"{FCOS}_heads4_moddirect.onnx"
    assert "fine" not in ExportRequest(FCOS).options()
    assert "fine" not in ExportRequest("rtdetr_r18_fine_window").options()


@pytest.mark.host
def test_the_blocks_are_what_the_options_say():
    entry = with_fine(FCOS, "r=1,k=2,heads=4,down=dwconv,modulation=none,ffn=0")
    family = family_of(entry.family)
    blocks = family.fusions(family.build(entry, 3))  # at identity, which this block cannot be
    assert [(b.config.r, b.config.k, b.config.num_heads, b.config.down) for b in blocks] == [(1, 2, 4, "dwconv")] * 2
    assert [(b.config.modulation, b.config.ffn_ratio, b.config.identity) for b in blocks] == [("none", 0, False)] * 2


@pytest.mark.host
def test_the_count_of_a_model_follows_its_options(capsys):
    """Fig. 5 by the convention of the zoo, which counts no norms: r = 1 costs most, r = 4 with k = 2 least."""
    texts = ("r=1,k=1", "k=1", "r=4,k=2", "r=4,k=2,ffn=0")
    names = [FCOS.removesuffix("_fine"), *(with_fine(FCOS, text).name for text in texts)]
    assert zoo([*names, "--json"]) == 0
    found = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    added = [found[name]["flops_g"] - found[names[0]]["flops_g"] for name in names[1:]]
    assert added == sorted(added, reverse=True)
    params_m = [found[name]["params_m"] - found[names[0]]["params_m"] for name in names[3:]]
    # Two blocks of C = 128: four projections, two norms and, for ratio 2, a feed-forward with its norm.
    of_block = 4 * 128 * 129 + 2 * 256
    of_feed_forward = 256 + 256 * 129 + 128 * 257
    assert params_m == pytest.approx([2 * (of_block + of_feed_forward) / 1e6, 2 * of_block / 1e6], abs=1e-3)
