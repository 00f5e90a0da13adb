"""Receptive fields: known ones, tokens, borders, and runs that were stopped."""

import numpy as np
import pytest
import torch
from PIL import Image
from stacks import box_sigma, boxes, loaded, random_stack, write_pictures

from fine_edge.analyze import receptive_field
from fine_edge.analyze.maps import frozen
from fine_edge.analyze.receptive_field import FieldOptions, receptive_fields
from fine_edge.errors import ConfigError, DataError, ImageError

CENTRE = (0.5, 0.5)


def options(height=64, width=64, at=CENTRE, ratios=(1, 2), batch=2):
    return FieldOptions(height, width, at, at, ratios, batch)


def test_the_field_of_stacked_averages_is_that_of_their_variances(tmp_path):
    found = receptive_fields(loaded(boxes()), write_pictures(tmp_path, 2), options(320, 288), None)
    assert [(one.stage, one.stride) for one in found.stages] == [(1, 4), (2, 8)]
    assert found.images == 2
    assert found.tokens == ()
    for one in found.stages:
        assert one.field.sigma_px == pytest.approx(box_sigma(one.stage), rel=0.02)
        assert one.field.sigma_moments_px == pytest.approx(box_sigma(one.stage), rel=1e-4)
        assert one.field.fitted.sigma == pytest.approx(one.field.sigma_px, rel=1e-4)
        assert one.field.sigma_sd_px == pytest.approx(0, abs=1e-5)
        assert not one.field.touches_border
    assert found.mean_ratio.value == pytest.approx(box_sigma(2) / box_sigma(1), rel=0.02)


def test_a_field_at_the_border_is_a_lower_bound(tmp_path):
    found = receptive_fields(loaded(boxes()), write_pictures(tmp_path, 1), options(320, 288, at=(0.0, 0.5)), None)
    field = found.stages[1].field
    assert field.touches_border
    assert field.fitted.cut_off > 0.1
    assert field.sigma_px < box_sigma(2)
    assert field.to_json()["touches_border"] is True
    assert field.sigma_sd_px is None  # of one picture


def test_tokens_are_sampled_as_fine_samples_them_and_their_fields_are_torchs_gradients(tmp_path):
    model, folder = random_stack(), write_pictures(tmp_path, 3, (64, 64))
    found = receptive_fields(loaded(model), folder, options(ratios=(1, 2, 4)), None)
    assert [(one.fusion, one.k, one.r, one.own) for one in found.tokens] == [("l=3", 1, r, r == 2) for r in (1, 2, 4)]
    mean = np.zeros((64, 64))
    for path in sorted(folder.iterdir()):
        pixels = np.array(Image.open(path), dtype=np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].requires_grad_(True)
        low = model.blocks[0](image)
        block = low[0, :, 8:10, 8:10].sum() / 4  # the token of r = 2 that holds the middle: 4 of 8 rows and columns
        block.backward()
        mean += image.grad[0].abs().mean(0).numpy() / 3
    np.testing.assert_allclose(found.tokens[1].low.mean, mean, atol=1e-7)
    sizes = [one.low.sigma_moments_px for one in found.tokens]
    assert sizes[0] < sizes[1] < sizes[2]
    assert len({one.high.sigma_px for one in found.tokens}) == 1
    assert found.tokens[0].ratio.value == found.tokens[0].high.sigma_px / found.tokens[0].low.sigma_px
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_interval_of_a_ratio_is_students_over_the_pictures(tmp_path):
    detector, folder = loaded(random_stack()), write_pictures(tmp_path, 4, (64, 64))
    alone = [receptive_fields(detector, one, options(), None) for one in sorted(folder.iterdir())]
    assert [one.tokens[0].to_json()["ratio_ci"] for one in alone] == [None] * 4  # one picture shows no spread
    low, high = ([getattr(one.tokens[0], side).sigma_px for one in alone] for side in ("low", "high"))
    found = receptive_fields(detector, folder, options(), None)
    ratio = np.mean(high) / np.mean(low)
    half = (
        3.182 * np.std(np.array(high) - ratio * np.array(low), ddof=1) / np.mean(low) / 2
    )  # t of 3 degrees; root of 4
    assert half > 1e-4
    assert found.tokens[0].to_json()["ratio_ci"] == pytest.approx([ratio - half, ratio + half], rel=1e-4)
    # Two stages have one ratio, which is the mean of all.
    assert found.to_json()["mean_ratio_ci"] == pytest.approx(found.to_json()["ratios_ci"][0])


def test_a_stopped_run_goes_on_and_gives_the_same_figures(tmp_path, monkeypatch):
    folder, out = write_pictures(tmp_path / "in", 5), tmp_path / "out"
    (folder / "1.png").write_bytes(b"\x89PNG broken")
    (folder / "loop.png").symlink_to("loop.png")
    detector = loaded(random_stack())
    whole = receptive_fields(detector, folder, options(batch=1), None).to_json()
    assert whole["images"] == 4
    assert list(whole["skipped"]) == ["1.png", "loop.png"]

    real, seen = receptive_field._influences, []

    def counted(*arguments):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        return real(*arguments)

    monkeypatch.setattr(receptive_field, "_influences", counted)
    with pytest.raises(KeyboardInterrupt):
        receptive_fields(detector, folder, options(batch=1), out)
    seen.clear()
    monkeypatch.setattr(receptive_field, "_influences", lambda *arguments: (seen.append(1), real(*arguments))[1])
    assert receptive_fields(detector, folder, options(batch=1), out).to_json() == whole
    assert len(seen) == 2
    # All is done: the figures come from the file. Other weights have a file of their own.
    assert receptive_fields(detector, folder, options(batch=1), out).to_json() == whole
    assert len(seen) == 2
    receptive_fields(loaded(random_stack(seed=1), "1" * 64), folder, options(batch=1), out)
    assert len(list(out.iterdir())) == 2
    write_pictures(folder, 1, (32, 32))  # other pixels under the same name
    receptive_fields(detector, folder, options(batch=1), out)
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-8], "not those that were written"),
        (lambda data: data[:-8] + b"\xff" * 8, "not those that were written"),
        (lambda data: data.replace(b'"images": 2', b'"images": 9'), "not those that were written"),
        (lambda _: b"{}\n{}\n", "of another run"),
        (lambda data: data.split(b"\n")[0] + b"\n[]\n", "cannot be gone on with"),
        (lambda data: data.split(b"\n")[0] + b"\n" + b"\xff" * 100, "cannot be gone on with"),
    ],
    ids=["cut", "nan", "progress", "foreign", "no object", "binary"],
)
def test_damaged_sums_are_refused(tmp_path, damage, words):
    folder, out = write_pictures(tmp_path / "in", 2), tmp_path / "out"
    detector = loaded(random_stack())
    receptive_fields(detector, folder, options(), out)
    (path,) = out.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=words) as caught:
        receptive_fields(detector, folder, options(), out)
    assert "remove it" in caught.value.hint


def test_fields_that_rest_on_nothing_are_errors(tmp_path):
    folder = write_pictures(tmp_path / "in", 1)
    dead, broken = boxes(), boxes()
    with torch.no_grad():
        dead.blocks[1][0].weight.zero_()
        broken.blocks[0][0].weight.fill_(float("nan"))
    with pytest.raises(DataError, match=r"gradient of stage 2 is zero for every picture \(1\)"):
        receptive_fields(loaded(dead), folder, options(), None)
    with pytest.raises(DataError, match="gradient of stage 1 is not finite"):
        receptive_fields(loaded(broken), folder, options(), None)
    (folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of 1 pictures can be read"):
        receptive_fields(loaded(boxes()), folder, options(), tmp_path / "out")
    with pytest.raises(ConfigError, match="cannot take an input of 1x1"):
        receptive_fields(loaded(boxes()), folder, options(1, 1), None)


def test_freezing_is_undone():
    model = boxes()
    model.blocks[1].requires_grad_(False)
    before = [weight.requires_grad for weight in model.parameters()]
    with frozen(model):
        assert not any(weight.requires_grad for weight in model.parameters())
    assert [weight.requires_grad for weight in model.parameters()] == before
