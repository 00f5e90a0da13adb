"""The kernel's own source, compiled for the CPU, against the numpy reference: indexing, arithmetic, and no stray write.

FP16 is compared bit for bit: one rounding, of the exact F * M + F, to the nearest and ties to even.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modulate_build import (
    HERE,
    NCHW,
    NHWC,
    NHWC8,
    aligned,
    load,
    load_reference,
    pointer,
    shared_library,
    stored,
    unstored,
)

reference = load_reference()
GUARD = 0x5A


@pytest.fixture(scope="module")
def kernel():
    with tempfile.TemporaryDirectory() as folder:
        library = load(shared_library(Path(folder) / "host.so", HERE / "host_modulate.cpp"))
        yield library.modulate


def tensors(seed, batch, channels, height, width, k, dtype):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((batch, channels, height, width)) * 4
    m = rng.standard_normal((batch, channels, -(-height // k), -(-width // k)))
    return low.astype(dtype), m.astype(dtype)


def modulated(kernel, low, m, k, layout, lanes):
    """The kernel's output; fails when anything beside the output was written."""
    f, tokens = stored(low, layout, np.nan), stored(m, layout, np.nan)
    before = f.copy(), tokens.copy()
    out = aligned(np.full(f.nbytes + 64, GUARD, np.uint8))  # 64 bytes behind the output must stay
    sizes = (ctypes.c_uint * 5)(*low.shape, k)
    kernel(sizes, layout, int(low.dtype == np.float16), lanes, pointer(f), pointer(tokens), pointer(out))
    assert (out[f.nbytes :] == GUARD).all()
    np.testing.assert_array_equal(f, before[0])
    np.testing.assert_array_equal(tokens, before[1])
    values, padding = unstored(out[: f.nbytes].view(low.dtype).reshape(f.shape), layout, low.shape[1])
    assert (padding == 0).all()
    return values


def assert_equal(out, low, m, k):
    expected = reference.modulate(low, m, k)
    if low.dtype == np.float16:
        np.testing.assert_array_equal(out.copy().view(np.uint16), expected.view(np.uint16))
    else:  # the reference rounds twice; see its docstring
        np.testing.assert_array_max_ulp(out, expected, maxulp=1)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    channels=st.integers(1, 19),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    k=st.integers(1, 9),
    dtype=st.sampled_from([np.float16, np.float32]),
    wide=st.booleans(),
)
@example(seed=0, batch=1, channels=1, height=1, width=1, k=9, dtype=np.float16, wide=True)  # less than one group
@example(seed=0, batch=2, channels=3, height=7, width=3, k=2, dtype=np.float16, wide=True)  # groups over three rows
def test_nchw(kernel, seed, batch, channels, height, width, k, dtype, wide):
    low, m = tensors(seed, batch, channels, height, width, k, dtype)
    lanes = 16 // low.itemsize if wide else 1
    assert_equal(modulated(kernel, low, m, k, NCHW, lanes), low, m, k)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    channels=st.integers(1, 33),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    k=st.integers(1, 9),
    case=st.sampled_from([(np.float16, NHWC8), (np.float32, NHWC8), (np.float32, NHWC), (np.float16, NHWC)]),
    wide=st.booleans(),
)
def test_channels_last(kernel, seed, batch, channels, height, width, k, case, wide):
    """Padding holds NaN on the way in and must be zero on the way out."""
    dtype, layout = case
    low, m = tensors(seed, batch, channels, height, width, k, dtype)
    lanes = 16 // low.itemsize if wide and (layout == NHWC8 or channels % (16 // low.itemsize) == 0) else 1
    assert_equal(modulated(kernel, low, m, k, layout, lanes), low, m, k)


@pytest.mark.parametrize("layout", [NCHW, NHWC8])
@pytest.mark.parametrize(("height", "width", "k"), [(40, 40, 2), (80, 80, 4), (75, 101, 4)])
def test_the_sizes_of_a_detector(kernel, layout, height, width, k):
    low, m = tensors(3, 1, 256, height, width, k, np.float16)
    assert_equal(modulated(kernel, low, m, k, layout, 8), low, m, k)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_every_kind_of_half(kernel, seed):
    """Subnormals, the largest numbers, overflow, zeros of both signs and infinities, bit for bit."""
    rng = np.random.default_rng(seed)
    low, m = rng.integers(0, 2**16, (2, 1, 4, 64, 64), dtype=np.uint16).view(np.float16)
    low[np.isnan(low)], m[np.isnan(m)] = 1, -1
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        expected = reference.modulate(low, m, 1)
    out = modulated(kernel, low, m, 1, NCHW, 8)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(out[numbers].view(np.uint16), expected[numbers].view(np.uint16))


def test_one_rounding_keeps_a_small_modulation(kernel):
    """F * (M + 1), what the native graph computes in FP16, loses an M below 2^-11; F * M + F does not."""
    low, m = np.full((1, 1, 1, 8), 1.5, np.float16), np.full((1, 1, 1, 8), 0.00048, np.float16)
    assert (modulated(kernel, low, m, 1, NCHW, 8) > low).all()
    assert (low * (m + np.float16(1)) == low).all()


def test_the_reference_is_the_paper_by_brute_force():
    low, m = tensors(5, 2, 3, 7, 5, 3, np.float32)
    out = reference.modulate(low, m, 3)
    for b, c, y, x in np.ndindex(low.shape):
        expected = np.float64(low[b, c, y, x]) * m[b, c, y // 3, x // 3] + np.float64(low[b, c, y, x])
        assert out[b, c, y, x] == np.float32(expected)
