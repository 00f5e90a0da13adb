import json
import random
from dataclasses import replace

import pytest

from fine_edge.contract import Artifact, Contract, TensorSpec, bound_contract, contract_path, read_contract
from fine_edge.errors import ArtifactError
from fine_edge.files import sha256_of
from fine_edge.preprocess import Preprocessing


@pytest.fixture
def contract():
    return Contract(
        model="rtdetr_r18_fine",
        artifacts=(Artifact("m.onnx", "fp32", "ab" * 32), Artifact("m.fp16.onnx", "fp16", "cd" * 32)),
        inputs=(TensorSpec("images", "float32", (2, 3, 320, 640), "pictures"),),
        outputs=(TensorSpec("scores", "float32", (2, 300), "best first"),),
        preprocessing=Preprocessing("letterbox", mean=(0.1, 0.2, 0.3)),
        postprocessed=True,
        labels=("person", 'größer | "quoted"'),
        opset=17,
        cost={"params": 21_229_840, "flops": 62_818_304_000, "convention": "2 x MACs"},
        golden={"file": "m.golden.npz", "sha256": "ef" * 32},
        made_by={"weights": {"source": "random", "seed": 3}, "versions": {"torch": "2.9"}},
    )


@pytest.fixture
def files(tmp_path, contract):
    """An ONNX file, its FP16 form and the contract that binds both."""
    (tmp_path / "m.onnx").write_bytes(b"fp32 bytes")
    (tmp_path / "m.fp16.onnx").write_bytes(b"fp16 bytes")
    artifacts = tuple(replace(a, sha256=sha256_of(tmp_path / a.file)) for a in contract.artifacts)
    (tmp_path / "m.contract.json").write_text(replace(contract, artifacts=artifacts).to_text(), encoding="utf-8")
    return tmp_path


def test_it_comes_back_as_it_was_written(tmp_path, contract):
    path = tmp_path / "m.contract.json"
    path.write_text(contract.to_text(), encoding="utf-8")
    assert read_contract(path) == contract
    assert read_contract(path).to_text() == contract.to_text()
    assert (contract.batch, contract.input_hw, contract.random_weights) == (2, (320, 640), True)


def test_the_hash_of_the_first_artifact_stands_at_the_top(contract):
    assert json.loads(contract.to_text())["sha256"] == "ab" * 32


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the first example of FIPS 180-4
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_both_precisions_share_one_contract(files):
    assert contract_path(files / "m.onnx") == contract_path(files / "m.fp16.onnx") == files / "m.contract.json"
    assert bound_contract(files / "m.onnx")[1].precision == "fp32"
    assert bound_contract(files / "m.fp16.onnx")[1].precision == "fp16"


@pytest.mark.parametrize("change", [b"fp32 bytez", b"fp32 byte", b""])
def test_changed_bytes_are_refused(files, change):
    (files / "m.onnx").write_bytes(change)
    with pytest.raises(ArtifactError, match=r"m\.onnx: sha256 [0-9a-f]{12} is not what m\.contract\.json lists .* -> "):
        bound_contract(files / "m.onnx")
    assert bound_contract(files / "m.fp16.onnx")


def test_what_is_missing_is_named(files):
    with pytest.raises(ArtifactError, match=r"other\.onnx: no such ONNX file"):
        bound_contract(files / "other.onnx")
    (files / "m.contract.json").unlink()
    with pytest.raises(ArtifactError, match=r"m\.contract\.json: the contract is missing -> copy it"):
        bound_contract(files / "m.onnx")
    (files / "m.contract.json").mkdir()
    with pytest.raises(ArtifactError, match="not a regular file"):
        bound_contract(files / "m.onnx")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"3", b'"text"', b"\xff\xfe\x00", b"{" * 100_000, b"[" * 100_000, b'{"format": 1}'],
    ids=lambda content: repr(content[:8]),
)
def test_what_is_no_contract_is_refused(tmp_path, content):
    (tmp_path / "m.contract.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"m\.contract\.json"):
        read_contract(tmp_path / "m.contract.json")


@pytest.mark.parametrize("shape", [[1, 3, 640], [1, 4, 640, 640], [1, 3, 0, 640], [1, 3, -1, 640], [1, 3, 1e999, 640]])
def test_an_input_that_is_no_picture_is_refused(tmp_path, contract, shape):
    data = json.loads(contract.to_text())
    data["inputs"][0]["shape"] = shape
    (tmp_path / "m.contract.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ArtifactError):
        read_contract(tmp_path / "m.contract.json")


def test_another_format_says_which(tmp_path, contract):
    (tmp_path / "m.contract.json").write_text(contract.to_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ArtifactError, match="contract format 2, this version reads 1 -> export the model again"):
        read_contract(tmp_path / "m.contract.json")


STRANGE = (None, True, -1, 0, 1e999, float("nan"), 10**400, "", "x", "fp16", [], [[]], {}, {"a": 1}, [None], "1" * 5000)


def places(data, path=()):
    """Every place in a JSON document, as paths of keys and indices."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def assert_contract_or_our_error(path):
    try:
        outcome = read_contract(path)
    except ArtifactError as error:
        outcome = error
    assert isinstance(outcome, Contract) or str(path) in str(outcome)


def test_any_value_in_any_place_gives_a_contract_or_our_error(tmp_path, contract):
    path = tmp_path / "m.contract.json"
    text = contract.to_text()
    tried = 0
    for place in list(places(json.loads(text)))[1:]:
        for value in (*STRANGE, ...):
            data = json.loads(text)
            inner = data
            for key in place[:-1]:
                inner = inner[key]
            if value is ...:
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            path.write_text(json.dumps(data), encoding="utf-8")
            assert_contract_or_our_error(path)
            tried += 1
    assert tried > 800


def test_damaged_text_gives_a_contract_or_our_error(tmp_path, contract):
    path = tmp_path / "m.contract.json"
    whole, rng = contract.to_text().encode(), random.Random(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice([*b'{}[]",:0123456789eE-', rng.randrange(256)])
        path.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.1 else damaged)
        assert_contract_or_our_error(path)
