"""The time of a kernel."""

import pytest
import works

from fine_edge.estimate.calibration import Constants
from fine_edge.estimate.device import find_device
from fine_edge.estimate.flops import Product, SelectedKernels
from fine_edge.estimate.roofline import kernel_times

DEVICE = find_device("orin-nano-8gb")
CONSTANTS = Constants(0.5, 0.5, 0.25, 2.0, 15.0)


def timed(mode="MAXN_SUPER", **work):
    return kernel_times([works.kernel(**work)], DEVICE, DEVICE.mode(mode), CONSTANTS)[0]


def test_a_large_product_is_bound_by_tensor_cores():
    found = timed(products=(Product(1, 8192, 1024, 1024),))
    assert found.bound == "compute"
    assert found.ms == pytest.approx(2 * 8192 * 2**20 / (0.5 * 8 * 2048 * 1.02e6) + 0.002)


def test_a_copy_is_bound_by_memory():
    found = timed(memory_bytes=51 * 10**6)
    assert (found.bound, found.ms) == ("memory", pytest.approx(1.002))


def test_scattered_reads_go_at_the_rate_of_l2():
    found = timed(memory_bytes=10, gathered_bytes=10**6)
    assert found.memory_ms == pytest.approx(1e6 / (0.25 * 8 * 64 * 1.02e6))


def test_computing_and_moving_take_turns():
    work = {"products": (Product(1, 8192, 1024, 1024),), "memory_bytes": 51 * 10**6}
    both = timed(**work)
    assert both.ms == pytest.approx(both.compute_ms + both.memory_ms + 0.002)
    assert both.bound == "compute"


def test_the_largest_are_found_by_one_multiprocessor_for_each_row():
    row = timed(selections=(SelectedKernels(1, 24_000),))
    assert row.compute_ms == pytest.approx(3.4 * 24_000 / 1.02e6)
    assert timed(selections=(SelectedKernels(8, 3000),)).compute_ms == pytest.approx(row.compute_ms / 8)
    assert timed(selections=(SelectedKernels(9, 3000),)).compute_ms == pytest.approx(row.compute_ms / 4)


def test_nothing_to_do_is_bound_by_the_launch():
    assert timed().bound == "launch"
    assert timed().ms == pytest.approx(0.002)


def test_products_and_exponentials_hide_behind_each_other():
    product = {"products": (Product(1, 8192, 1024, 1024),)}
    assert timed(**product, special=10**6).compute_ms == timed(**product).compute_ms
    assert timed(**product, special=10**9).compute_ms == pytest.approx(8e9 / (8 * 128 * 1.02e6))


def test_modes_scale_by_their_own_clocks():
    product, copied = {"products": (Product(1, 8192, 1024, 1024),)}, {"memory_bytes": 10**7}
    assert timed("15W", **product).compute_ms / timed(**product).compute_ms == pytest.approx(1020 / 612)
    assert timed("15W", **copied).memory_ms / timed(**copied).memory_ms == pytest.approx(102 / 68)
    assert timed("25W", **copied).memory_ms == timed(**copied).memory_ms
