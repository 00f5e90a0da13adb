"""Pictures to detections: order, batches, bad pictures, and how many are in memory."""

import threading

import numpy as np
import pytest
from PIL import Image

from fine_edge.contract import Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.evaluate.run import ahead, detect
from fine_edge.preprocess import Preprocessing
from fine_edge.runners.base import WallTimed

SIZE = 8


def contract(batch=1, task="detection"):
    shape = (batch, 3, SIZE, SIZE)
    return Contract(
        model="made up",
        artifacts=(),
        inputs=(TensorSpec("images", "float32", shape, ""),),
        outputs=(),
        preprocessing=Preprocessing(),
        postprocessed=True,
        labels=("a",),
        opset=18,
        cost={},
        golden={},
        made_by={"weights": {"source": "random"}},
        task=task,
    )


class Brightness(WallTimed):
    """Finds one box in each picture, with its brightness for a score."""

    name = "made up"

    def __init__(self, score=None):
        self.batches, self.score = [], score

    def run(self, inputs):
        images = inputs["images"]
        self.batches.append(len(images))
        batch = len(images)
        scores = (
            images.mean(axis=(1, 2, 3)).reshape(batch, 1) if self.score is None else np.full((batch, 1), self.score)
        )
        box = np.tile(np.float32([[[0, 0, 4, 8]]]), (batch, 1, 1))
        return {"labels": np.zeros((batch, 1), np.int64), "boxes_xyxy": box, "scores": scores.astype(np.float32)}

    def close(self):
        pass


@pytest.fixture
def pictures(tmp_path):
    """Seven of different brightness and width; one is missing and one is no picture."""
    images = []
    for number in range(7):
        name = f"{number}.png"
        Image.new("RGB", (10 + number, 20), (10 * number + 10,) * 3).save(tmp_path / name)
        images.append((number, name))
    (tmp_path / "5.png").write_bytes(b"no picture")
    (tmp_path / "2.png").unlink()
    return tmp_path, images


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_every_image_comes_once_with_its_own_answer(pictures, batch):
    folder, images = pictures
    runner = Brightness()
    seen = {one.image_id: one for one in detect(images, folder, contract(batch), runner)}
    assert sorted(seen) == list(range(7))
    assert set(runner.batches) == {batch}
    for number, one in seen.items():
        if number in (2, 5):
            assert one.found is None
            assert one.error.where == str(folder / f"{number}.png")
            continue
        assert one.found.scores == pytest.approx([(10 * number + 10) / 255], abs=1e-6)
        np.testing.assert_allclose(one.found.boxes_xyxy_px, [[0, 0, (10 + number) / 2, 20]], rtol=1e-6)


def test_images_alone_come_in_order(pictures):
    folder, images = pictures
    assert [one.image_id for one in detect(images, folder, contract(), Brightness())] == list(range(7))


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_what_is_no_number_is_an_error(pictures, score):
    folder, images = pictures
    with pytest.raises(ArtifactError, match="made up: the network gives NaN or infinities in scores"):
        list(detect(images, folder, contract(), Brightness(score)))


def test_an_error_of_the_network_ends_all_threads(pictures):
    folder, images = pictures
    before = threading.active_count()

    class Broken(Brightness):
        def run(self, _inputs):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(detect(images, folder, contract(), Broken()))
    assert threading.active_count() == before


def test_nothing_runs_far_ahead():
    from concurrent.futures import ThreadPoolExecutor

    started = []
    with ThreadPoolExecutor(2) as pool:
        results = ahead(lambda item: started.append(item) or item, range(100), pool, depth=4)
        for taken in range(10):
            assert next(results) == taken
            assert len(started) <= taken + 4
        results.close()
    assert len(started) < 20
