"""``python -m fine_edge.bench``: the same as ``fine-edge bench``."""

from fine_edge.cli.program import run

if __name__ == "__main__":
    run("bench")
