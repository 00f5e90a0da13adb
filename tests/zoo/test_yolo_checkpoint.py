"""Checkpoints of ultralytics are read for their weights; no code that they name is run."""

import copy
import io
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from yolo_models import built, learned_noise, yolo

from fine_edge.errors import WeightsError
from fine_edge.zoo import checkpoints
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load
from fine_edge.zoo.yolo.checkpoint import allowed_records, read
from fine_edge.zoo.yolo.library import quiet

pytestmark = pytest.mark.host


def trainers_file(model, folder):
    """``last.pt`` as ultralytics' own trainer writes it, with an optimiser that has seen a step."""
    from ultralytics.cfg import get_cfg
    from ultralytics.engine.trainer import BaseTrainer

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.zero_grad()
    trainer = SimpleNamespace(
        ema=SimpleNamespace(ema=model, updates=3),
        model=model,
        epoch=0,
        best_fitness=0.5,
        fitness=0.5,
        stopper=SimpleNamespace(best_fitness=0.5, best_epoch=0),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        args=get_cfg(),
        metrics={"metrics/mAP50(B)": 0.5},
        read_results_csv=dict,
        wdir=folder,
        last=folder / "last.pt",
        best=folder / "best.pt",
        save_period=0,
    )
    with quiet():
        BaseTrainer.save_model(trainer)
    return trainer.last


def model_of(name, num_labels=80):
    return learned_noise(yolo.build(find(name), num_labels, identity=False))


def assert_holds(loaded, source, dtype=torch.float32):
    mine = loaded.state_dict()
    for key, tensor in checkpoints.learned_state(source).items():
        assert torch.equal(mine[key], tensor.to(dtype).float()), key


@pytest.mark.parametrize("name", ["yolov5s", "yolov6s", "yolov8s_fine", "yolov10s", "yolov12s"])
def test_a_trainers_file(name, tmp_path):
    source = model_of(name)
    found = load(find(name), trainers_file(source, tmp_path))
    assert_holds(found.model, source, torch.float16)
    assert (found.report.layout, found.report.missing, found.report.unexpected) == ("ultralytics", (), ())
    assert found.report.fine == ("loaded" if name.endswith("_fine") else "none")
    assert found.labels[:2] == ("person", "bicycle")


def test_a_baselines_file_gives_fine_at_identity(tmp_path):
    source = model_of("yolov8s")
    found = load(find("yolov8s_fine"), trainers_file(source, tmp_path))
    assert found.report.fine == "identity"
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.model(image)[0], load(find("yolov8s"), tmp_path / "last.pt").model(image)[0])


def test_own_classes_come_with_their_names(tmp_path):
    source = model_of("yolov8s", 3)
    source.names = {0: "cat", 1: "dog", 2: "cow"}
    found = load(find("yolov8s"), trainers_file(source, tmp_path))
    assert found.labels == ("cat", "dog", "cow")
    assert found.model.model[-1].nc == 3
    torch.save({"model": source.state_dict(), "names": source.names}, tmp_path / "state.pt")
    assert load(find("yolov8s"), tmp_path / "state.pt").labels == ("cat", "dog", "cow")


def _with(change):
    model = copy.deepcopy(built("yolov8s", 3))
    model.names = {0: "cat", 1: "dog", 2: "cow"}
    change(model)
    return {"model": model, "train_args": {"imgsz": 320}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: setattr(model.model[0], "act", torch.nn.ReLU()), r"model\.0\.act is ReLU.*has SiLU"),
        (lambda model: setattr(model.model[0].bn, "eps", 0.1), r"model\.0\.bn\.eps = 0\.1"),
        (lambda model: setattr(model.model[2].m[0], "add", False), r"model\.2\.m\.0\.add = False"),
        (lambda model: setattr(model.model[22], "f", [15, 18, 20]), r"model\.22\.f = \[15, 18, 20\]"),
        (lambda model: setattr(model, "stride", torch.tensor([4.0, 8.0, 16.0])), "stride = "),
        (lambda model: setattr(model.model[22], "stride", torch.tensor([8.0, 16.0, 64.0])), r"stride = .*64\.0"),
        (lambda model: setattr(model.model[22], "xyxy", True), r"model\.22\.xyxy = True"),
        (lambda model: setattr(model, "names", {0: "cat"}), "it names 1 classes, its class head has 3"),
        (lambda model: setattr(model, "names", {1: "a", 2: "b", 3: "c"}), "not for the classes 0"),
        (lambda model: setattr(model, "names", {0: "a", 1: ["b"], 2: "c"}), "class 1 is a list"),
        (lambda model: model.model[0].conv.weight.data.fill_(torch.nan), r"model\.0\.conv\.weight holds .* not finite"),
        (lambda model: model.model[0].bn.running_var.fill_(-1), "negative variance"),
    ],
)
def test_what_a_file_says_beside_its_weights_is_the_model_s_own(change, words, tmp_path):
    torch.save(_with(change), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=words):
        load(find("yolov8s"), tmp_path / "x.pt")


def test_names_are_made_fit_to_be_written_and_the_training_s_size_is_known(tmp_path):
    torch.save(_with(lambda model: setattr(model, "names", ["a\nb", "\ud800", "ok"])), tmp_path / "x.pt")
    found = load(find("yolov8s"), tmp_path / "x.pt")
    assert found.labels == ("a\\nb", "\\ud800", "ok")
    assert found.trained_hw == (320, 320)


@pytest.mark.parametrize(
    ("yaml", "kind", "words"),
    [
        ("yolo11n.yaml", "DetectionModel", r"the file says yolo11n of ultralytics.*not supported.*yolov5s"),
        (
            "yolo26n-seg.yaml",
            "SegmentationModel",
            r"is yolo26n-seg of ultralytics.*segmentation.*supported: yolov5s",
        ),
    ],
)
def test_another_model_of_ultralytics_is_called_by_its_name(yaml, kind, words, tmp_path):
    from ultralytics.nn import tasks

    with quiet():
        torch.save({"model": getattr(tasks, kind)(yaml, verbose=False)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=words):
        load(find("yolov8s"), tmp_path / "x.pt")


def test_a_fused_model_names_getattr_which_is_not_called(tmp_path):
    """Its layers hold bound methods; what is read is weights of another model, which is then said."""
    fused = copy.deepcopy(built("yolov8s"))
    with quiet():
        fused.fuse(verbose=False)
    torch.save({"model": fused}, tmp_path / "fused.pt")
    assert "model.0.conv.bias" in read(tmp_path / "fused.pt").state
    with pytest.raises(WeightsError, match="weights of another model"):
        load(find("yolov8s"), tmp_path / "fused.pt")


@pytest.mark.parametrize("layout", ["state_dict", "wrapped", "safetensors", "fine_edge"])
def test_weights_alone(layout, tmp_path):
    source = model_of("yolov8s")
    path = tmp_path / ("weights.pt" if layout in ("state_dict", "wrapped") else "weights.safetensors")
    if layout == "state_dict":
        torch.save(source.half().state_dict(), path)
    elif layout == "wrapped":
        torch.save({"model": source.state_dict(), "epoch": 3}, path)
    elif layout == "safetensors":
        save_file({key: tensor.clone() for key, tensor in source.state_dict().items()}, path)
    else:
        checkpoints.save(source, path, name="yolov8s", labels=tuple("abcdefgh" * 10))
    found = load(find("yolov8s"), path)
    assert_holds(found.model, source)
    assert found.report.layout == ("fine_edge" if layout == "fine_edge" else "state_dict")


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["model", "attribute", "beside"])
def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(where, tmp_path):
    trace, model = tmp_path / "it-ran", built("yolov8s")
    data = {"model": model, "ema": None}
    if where == "model":
        data["model"] = Shell(trace)
    elif where == "beside":
        data["train_args"] = Shell(trace)
    else:
        data["model"] = copy.copy(model)
        data["model"].extra = Shell(trace)
    torch.save(data, tmp_path / "bad.pt")
    with pytest.raises(
        WeightsError, match=r"cannot be loaded without running code \((os|posix)\.system\).*-> save"
    ) as e:
        read(tmp_path / "bad.pt")
    assert "\n" not in str(e.value)
    assert not trace.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert trace.exists()  # it would have, so the test means something


class Call:
    """Calls one of the names that a checkpoint may hold."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_names_that_are_known_are_inert_too(tmp_path):
    """``getattr`` would hand out any method, and ultralytics' classes build themselves from what they are given."""
    from ultralytics.nn.tasks import DetectionModel

    data = {"model": built("yolov8s"), "a": Call(getattr, "text", "upper"), "b": Call(DetectionModel, "yolov8n.yaml")}
    torch.save(data, tmp_path / "calls.pt")
    assert read(tmp_path / "calls.pt").state.keys() == checkpoints.learned_state(built("yolov8s")).keys()
    found = checkpoints.read_torch(tmp_path / "calls.pt", allowed_records(tmp_path / "calls.pt"))
    assert not callable(found["a"])
    assert not isinstance(found["b"], torch.nn.Module)


def test_any_other_class_is_refused(tmp_path):
    torch.save({"model": built("yolov8s"), "x": SimpleNamespace()}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"types\.SimpleNamespace"):
        read(tmp_path / "x.pt")


def test_weights_of_another_detector_are_refused(tmp_path):
    torch.save(built("yolov8s").state_dict(), tmp_path / "v8.pt")
    with pytest.raises(WeightsError, match="weights of another model"):
        load(find("yolov10s"), tmp_path / "v8.pt")


@pytest.mark.parametrize(
    "data", [{"model": torch.nn.Linear(2, 2)}, {"ema": torch.ones(3), "model": None}, [], {"a": {}}]
)
def test_what_is_no_detector_is_refused(data, tmp_path):
    torch.save(data, tmp_path / "x.pt")
    with pytest.raises(WeightsError):
        load(find("yolov8s"), tmp_path / "x.pt")


def test_damaged_files_are_refused_in_one_line(tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": built("yolov8s")}, buffer)
    whole = buffer.getvalue()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"hello",
        "pickle": pickle.dumps([]),
    }.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(data)
        with pytest.raises(WeightsError) as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        read(tmp_path / "absent.pt")
