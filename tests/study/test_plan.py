"""A study's file: what may stand in it, and what is said of anything else. No torch takes part."""

from pathlib import Path

import pytest

from fine_edge.errors import FineEdgeError
from fine_edge.study.plan import read_plan

DATA = '[data]\ntrain = "train.json"\nval = "val.json"\nimages = "images"\n'
RECIPE = '[recipe]\nepochs = 2\nbatch = 4\ninput_size = "128x160"\n'
GRID = '[grid]\nmodel = ["fcos_mobilenetv3", "fcos_mobilenetv3_fine"]\nheads = [4, 8]\nmodulation = ["direct"]\n'
TWO = '[[variant]]\nmodel = "fcos_mobilenetv3"\n[[variant]]\nname = "ours"\nmodel = "fcos_mobilenetv3_fine"\n'


HUGE = "".join(f"{name} = {list(range(1, 101))}\n" for name in ("r", "k", "heads"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "blood_cells" / "study.toml"


def read(folder, text, data=None):
    path = folder / "study.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plan(path, data)


def test_a_grid_is_spanned_and_the_base_stands_first(tmp_path):
    text = f'title = "T"\nbase = "ours"\nseeds = [0, 7]\n{DATA}{RECIPE}{TWO}fine = "r=4"\n{GRID}'
    plan = read(tmp_path, text)
    assert [(variant.name, variant.model) for variant in plan.variants] == [
        ("ours", "fcos_mobilenetv3_fine_r4"),
        ("fcos_mobilenetv3", "fcos_mobilenetv3"),
        *[(f"fcos_mobilenetv3_fine_heads{n}_moddirect",) * 2 for n in (4, 8)],
    ]
    assert (plan.title, plan.seeds, plan.base.name) == ("T", (0, 7), "ours")
    assert plan.data.train == tmp_path / "train.json"
    assert plan.data.val_images == tmp_path / "images"
    recipe = plan.recipe_of(plan.base, 7)
    assert (recipe.model, recipe.height, recipe.width, recipe.epochs, recipe.seed) == (plan.base.model, 128, 160, 2, 7)
    assert recipe.learning_rate == 1e-3


def test_data_lie_where_they_are_said_to(tmp_path):
    text = f'seeds = [0]\n{DATA}val_images = "/elsewhere"\n{RECIPE}weights = "w.pth"\n{GRID}'
    plan = read(tmp_path, text, tmp_path / "bccd")
    assert plan.data.train == tmp_path / "bccd" / "train.json"
    assert str(plan.data.val_images) == "/elsewhere"
    assert plan.recipe.weights == tmp_path / "w.pth", "it is no part of the data"


def test_the_example_compares_eight_variants_of_three_seeds():
    plan = read_plan(EXAMPLE)
    assert (len(plan.variants), plan.seeds, plan.base.model) == (8, (0, 1, 2), "fcos_mobilenetv3")
    assert [variant.model.removeprefix("fcos_mobilenetv3_fine") for variant in plan.variants[1:]] == [
        *("", "_heads4", "_downmax", "_moddirect", "_modnone", "_window", "_linear")
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seeds = [0", "is no TOML"),
        (b"\x00\xff\x13", "is no UTF-8 text"),
        ("", "object missing required field data"),
        (f"seeds = [0]\n{DATA}{RECIPE}", "nothing is varied"),
        (f"seeds = []\n{DATA}{RECIPE}{TWO}", "seeds"),
        (f"seeds = [0, 0]\n{DATA}{RECIPE}{TWO}", "the seed 0 is there twice"),
        (f"seeds = [-1]\n{DATA}{RECIPE}{TWO}", "seeds"),
        (f"seeds = [99999999999999999999]\n{DATA}{RECIPE}{TWO}", "seeds|is no TOML"),
        (f"seed = [0]\nseeds = [0]\n{DATA}{RECIPE}{TWO}", "seed is unknown.*known: base, data"),
        (f"seeds = [0]\n{DATA}{RECIPE}lr = 0.1\n{TWO}", "recipe.lr is unknown.*learning_rate"),
        (f"seeds = [0]\n{DATA}{RECIPE}learning_rate = nan\n{TWO}", "learning_rate"),
        (f"seeds = [0]\n{DATA}{RECIPE}learning_rate = inf\n{TWO}", "learning_rate"),
        (f'seeds = [0]\n{DATA}{RECIPE}flips = "up"\n{TWO}', "'up' is unknown"),
        (f"seeds = [0]\n{DATA}{RECIPE.replace('128', 'wide')}{TWO}", "input size 'widex160' is not understood"),
        (f"seeds = [0]\n{DATA}{RECIPE}{TWO}heads = 4\n", r"variant\[1\].heads is unknown"),
        (f'seeds = [0]\n{DATA}{RECIPE}{TWO}fine = "heads=x"\n', "heads is 'x', it is a whole number"),
        (f'seeds = [0]\n{DATA}{RECIPE}{TWO}[[variant]]\nmodel = "fcos_mobilenetv3"\n', "is there twice"),
        (f'seeds = [0]\n{DATA}{RECIPE}[[variant]]\nmodel = "nothing"\n', "no model is called 'nothing'"),
        (f'seeds = [0]\n{DATA}{RECIPE}[[variant]]\nmodel = "maskrcnn_r50"\n', "needs masks"),
        (f'base = "x\x07"\nseeds = [0]\n{DATA}{RECIPE}{TWO}', "is no TOML|base"),
        (f'base = "other"\nseeds = [0]\n{DATA}{RECIPE}{TWO}', "base 'other' is no variant.*ours"),
        (f"seeds = [0]\n{DATA}{RECIPE}[grid]\nheads = [4]\n", "the grid has no models"),
        (
            f'seeds = [0]\n{DATA}{RECIPE}[grid]\nmodel = ["rtdetr_r18_fine"]\n{HUGE}',
            "the grid has 1000000 combinations",
        ),
        (f'seeds = [0]\n{DATA}{RECIPE}[grid]\nmodel = ["rtdetr_r18_fine"]\nwidth = [4]\n', "is no option of FINE"),
    ],
)
def test_anything_else_is_one_line(tmp_path, text, reason):
    with pytest.raises(FineEdgeError, match=reason) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "\x07" not in str(caught.value)
    assert "study.toml" in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FineEdgeError, match="no such file"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(FineEdgeError, match="at most 1048576 are read"):
        read_plan(tmp_path / "large.toml")
