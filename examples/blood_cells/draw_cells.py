"""A drawn picture of red blood cells, which anybody may have: for the demo and the tests.

python examples/blood_cells/draw_cells.py drawn_cells.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480
PLASMA, CELL, DIMPLE = (226, 222, 226), (204, 170, 180), (216, 194, 202)


def draw_cells(seed: int = 0, count: int = 13) -> tuple[Image.Image, np.ndarray]:
    """The picture, and the boxes (N, 4) of its cells, x0, y0, x1, y1 in pixels. No two cells touch."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (WIDTH, HEIGHT), PLASMA)
    pen = ImageDraw.Draw(picture)
    cells: list[tuple[int, int, int]] = []
    while len(cells) < count:
        radius = int(rng.integers(42, 52))
        x, y = int(rng.integers(radius, WIDTH - radius)), int(rng.integers(radius, HEIGHT - radius))
        if all(np.hypot(x - cx, y - cy) > radius + other + 4 for cx, cy, other in cells):
            cells.append((x, y, radius))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), CELL)
            pen.ellipse((x - radius // 3, y - radius // 3, x + radius // 3, y + radius // 3), DIMPLE)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(3)), dtype=np.float64)
    noisy = (blurred + rng.normal(0, 4, blurred.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(noisy), np.array([(x - r, y - r, x + r, y + r) for x, y, r in cells], dtype=np.float32)


if __name__ == "__main__":
    draw_cells()[0].save(sys.argv[1], quality=85)
