"""The process in which TensorRT-RTX compiles one model: ``python -m fine_edge.engine.compile_rtx FILE.onnx``.

A process of its own for every build, because only the first logger of a process is honoured, and so that
a crash or an endless build takes nobody with it. The VERBOSE log goes to standard error, one JSON
object to standard output. Exit code 1 when the model is refused.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

COMPUTE_CAPABILITY = (8, 6)
"""SM86, the nearest that TensorRT-RTX compiles for; Orin is SM87."""


def compile_model(onnx_path: Path) -> dict[str, object]:
    """Build for SM86 on the CPU; ``compile_s``, ``version`` and the size of the plan. The plan itself is dropped."""
    import tensorrt_rtx
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.logger import G_LOGGER

    from fine_edge.engine.plan import build_plan

    G_LOGGER.module_severity = G_LOGGER.SUPER_VERBOSE
    config = CreateConfigRTX(
        compute_capabilities=[COMPUTE_CAPABILITY],
        profiling_verbosity=tensorrt_rtx.ProfilingVerbosity.DETAILED,
    )
    start_s = time.perf_counter()
    plan = build_plan(onnx_path, config)
    compile_s = time.perf_counter() - start_s
    return {"compile_s": compile_s, "version": str(tensorrt_rtx.__version__), "plan_bytes": len(plan)}


def main(argv: list[str]) -> int:
    """Entry point of the child process."""
    from polygraphy.exception import PolygraphyException

    # Polygraphy prints its log, and the compiler's C++ writes to descriptor 1: both belong to the log.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            result = compile_model(Path(argv[0]))
        except PolygraphyException:
            return 1
        out.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
