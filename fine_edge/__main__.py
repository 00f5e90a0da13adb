"""``python -m fine_edge``: the same as ``fine-edge``."""

from fine_edge.cli.program import run

if __name__ == "__main__":
    run()
