"""The time of a kernel."""

from dataclasses import replace

import pytest
import works

from fine_edge.estimate.device import find_device
from fine_edge.estimate.flops import Product, SelectedKernels
from fine_edge.estimate.published import MEASURED
from fine_edge.estimate.roofline import TILE_ENDS, in_int8, kernel_times

DEVICE = find_device("orin-nano-8gb")
CONSTANTS = replace(
    MEASURED,
    tensor_share=0.5,
    tf32_share=0.4,
    memory_share=0.5,
    lanes_share=0.5,
    gather_share=0.25,
    input_share=0.1,
    gate_slots=64.0,
    kernel_clocks=2040.0,
    gap_us=5.0,
)
PRODUCT = {"products": (Product(1, 8192, 1024, 1024),)}
# Tiles of 256 x 128: each step of depth multiplies 32768 times and reads 384 elements, each as long as 8 products.
FLOPS = 2 * 8192 * 2**20 * (1 + 8 * 384 / 32768) * (1024 + TILE_ENDS) / 1024
LAUNCH_MS = 0.002


def timed(mode="MAXN_SUPER", precision="fp16", graph=True, **work):
    return kernel_times([works.kernel(**work)], DEVICE, DEVICE.mode(mode), CONSTANTS, precision, graph=graph)[0]


def test_a_large_product_is_bound_by_tensor_cores_at_the_rate_of_its_precision():
    peak = 8 * 2048 * 1.02e6
    for precision, rate in (("fp16", 0.5), ("fp32", 0.5 * 0.4), ("int8", 2 * 0.5)):
        found = timed(precision=precision, **PRODUCT)
        assert found.bound == "compute"
        assert found.ms == pytest.approx(FLOPS / (rate * peak) + LAUNCH_MS)


def test_few_filters_take_as_long_as_the_narrowest_tile():
    narrow, full = (timed(products=(Product(1, 25_600, columns, 64),)).compute_ms for columns in (16, 64))
    assert narrow == full


def test_products_side_by_side_hide_the_ends_of_their_tiles():
    one, eight = (timed(products=(Product(batch, 1024, 1024, 256),)).compute_ms for batch in (1, 8))
    assert one / (eight / 8) == pytest.approx((256 + TILE_ENDS) / 256, rel=0.05)


def test_a_copy_is_bound_by_memory():
    found = timed(memory_bytes=51 * 10**6)
    assert (found.bound, found.ms) == ("memory", pytest.approx(1.002))


def test_scattered_reads_go_at_the_rate_of_l2():
    found = timed(memory_bytes=10, gathered_bytes=10**6)
    assert found.memory_ms == pytest.approx(1e6 / (0.25 * 8 * 64 * 1.02e6))


def test_computing_and_moving_overlap():
    both = timed(**PRODUCT, memory_bytes=51 * 10**6)
    assert both.ms == pytest.approx(max(both.compute_ms, both.memory_ms) + LAUNCH_MS)


def test_gates_come_behind_the_products():
    alone, gated = timed(**PRODUCT), timed(**PRODUCT, gates=10**6)
    assert gated.compute_ms - alone.compute_ms == pytest.approx(64 * 1e6 / (8 * 128 * 1.02e6))


def test_scores_that_are_not_fused_pass_memory_four_times():
    assert timed(scores_bytes=51 * 10**6).memory_ms == pytest.approx(4.0)


def test_an_input_is_converted_at_a_rate_of_its_own():
    assert timed(converted_bytes=102 * 10**5).memory_ms == pytest.approx(1.0)


def test_the_largest_are_found_by_one_multiprocessor_for_each_row():
    row = timed(selections=(SelectedKernels(1, 24_000),))
    assert row.compute_ms == pytest.approx(3.4 * 24_000 / 1.02e6)
    assert timed(selections=(SelectedKernels(8, 3000),)).compute_ms == pytest.approx(row.compute_ms / 8)
    assert timed(selections=(SelectedKernels(9, 3000),)).compute_ms == pytest.approx(row.compute_ms / 4)


def test_nothing_to_do_is_bound_by_the_launch_and_without_a_graph_by_the_gap_too():
    assert timed().bound == "launch"
    assert timed().ms == pytest.approx(LAUNCH_MS)
    assert timed(graph=False).ms == pytest.approx(LAUNCH_MS + 0.005)


def test_products_and_exponentials_hide_behind_each_other():
    assert timed(**PRODUCT, special=10**6).compute_ms == timed(**PRODUCT).compute_ms
    assert timed(**PRODUCT, special=10**9).compute_ms == pytest.approx(8e9 / (0.5 * 8 * 128 * 1.02e6))


def test_modes_scale_by_their_own_clocks_and_multiprocessors():
    copied = {"memory_bytes": 10**7}
    assert timed("15W", **PRODUCT).compute_ms / timed(**PRODUCT).compute_ms == pytest.approx(1020 / 612)
    assert timed("15W", **copied).memory_ms / timed(**copied).memory_ms == pytest.approx(102 / 68)
    assert timed("25W", **copied).memory_ms == timed(**copied).memory_ms
    large = find_device("agx-orin-64gb")
    whole, half = (
        kernel_times([works.kernel(**PRODUCT)], large, large.mode(mode), CONSTANTS)[0].compute_ms
        for mode in ("MAXN", "30W")
    )
    assert half / whole == pytest.approx(2 * 1300.5 / 624.75)


def test_int8_halves_the_bytes_of_products_alone():
    product, copy = in_int8([works.kernel(**PRODUCT, memory_bytes=10), works.kernel(memory_bytes=10)])
    assert (product.memory_bytes, copy.memory_bytes) == (5, 10)
