"""From nodes to kernels: nothing is counted twice, and what L2 holds is not fetched."""

from hypothesis import given
from hypothesis import strategies as st

from fine_edge.engine.rtx_log import Kernel
from fine_edge.estimate.flops import NodeWork, Product
from fine_edge.estimate.work import KernelWork, kernel_works, live_bytes

PRODUCT = Product(1, 100, 64, 32)
NODES = {"/a/Conv": NodeWork(PRODUCT), "/a/Relu": NodeWork(plain=6400), "/b/GridSample": NodeWork(gathered_bytes=640)}
L2 = 1000


def test_a_product_belongs_to_the_kernel_made_for_it():
    kernels = [
        Kernel("__myl_Cast", "kgen", ("/a/Conv",)),
        Kernel("conv", "correlation", ("/a/Conv", "/a/Relu")),
        Kernel("__myl_Move", "kgen", ("/a/Relu",)),
    ]
    found = kernel_works(kernels, NODES, L2)
    assert [work.flops for work in found] == [0, PRODUCT.flops, 0]
    assert [work.plain for work in found] == [0, 0, 6400]


@given(st.lists(st.sets(st.sampled_from(sorted(NODES))), min_size=1, max_size=6))
def test_every_node_is_counted_once_or_not_at_all(named):
    kernels = [Kernel(f"k{index}", "kgen", tuple(sorted(names))) for index, names in enumerate(named)]
    found = kernel_works(kernels, NODES, L2)
    seen = set().union(*named)
    assert sum(work.flops for work in found) == sum(NODES[name].flops for name in seen)
    assert sum(work.gathered_bytes for work in found) == sum(NODES[name].gathered_bytes for name in seen)


def test_what_was_written_just_now_is_read_from_l2():
    first = Kernel("a", "kgen", (), writes=(("small", 400), ("large", 5000)))
    second = Kernel("b", "kgen", (), reads=(("small", 400),), writes=(("out", 100),))
    assert [work.memory_bytes for work in kernel_works([first, second], {}, L2)] == [5400, 500]  # pushed out
    assert [work.memory_bytes for work in kernel_works([first, second], {}, 10**6)] == [5400, 100]
    assert [work.tensor_bytes for work in kernel_works([first, second], {}, L2)] == [5400, 500]


def test_a_gather_reads_no_more_than_it_can_use():
    gather = Kernel("g", "kgen", ("/b/GridSample",), reads=(("map", 10**6),), writes=(("out", 10),))
    (found,) = kernel_works([gather], NODES, L2)
    assert found.memory_bytes == 160 + 10


def test_parts_and_constants():
    kernel = Kernel("k", "gemm", ("/detector/encoder/fine.0/query/MatMul",), constants=(("w", 512),))
    (found,) = kernel_works([kernel], {}, L2)
    assert (found.module, found.memory_bytes) == ("fine: projections", 512)
    assert KernelWork.from_json(found.to_json()) == found


def test_what_is_needed_at_one_moment():
    first = Kernel("a", "kgen", (), writes=(("x", 100), ("y", 10)))
    second = Kernel("b", "kgen", (), reads=(("x", 100),), writes=(("z", 50),))
    third = Kernel("c", "kgen", (), reads=(("y", 10), ("z", 50)), writes=(("out", 1),))
    assert live_bytes([first, second, third]) == 100 + 10 + 50
    assert live_bytes([]) == 0
