"""Draw what was found into a frame, fast enough for video: boxes, labels, track ids, masks and segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fine_edge.decode import Prediction, label_name
from fine_edge.detections import Detections
from fine_edge.drawing import color_of, tinted
from fine_edge.fast_preprocess import in_one_piece
from fine_edge.libraries import opencv
from fine_edge.stream.source import Pixels
from fine_edge.text import printable


def draw_frame(
    pixels: Pixels, found: Prediction, labels: tuple[str, ...], line: str, tracks: Sequence[int] | None = None
) -> Pixels:
    """Return a frame (H, W, 3), RGB, with everything that was found and a line of text at its bottom.

    Args:
        pixels: the frame; it is not changed.
        found: in pixels of the frame.
        labels: names of the classes.
        line: what produced it.
        tracks: number of the track of each detection, -1 for none; the colour is the track's then.
    """
    cv2 = opencv()
    whole = in_one_piece(pixels)
    canvas = tinted(whole, found)
    if np.may_share_memory(canvas, pixels):
        canvas = canvas.copy()
    scale = max(0.4, min(canvas.shape[:2]) / 1200)
    thick = max(1, round(2 * scale))
    if isinstance(found, Detections):
        for index in reversed(range(len(found))):
            track = -1 if tracks is None else tracks[index]
            color = color_of(int(found.labels[index]) if track < 0 else track)
            x0, y0, x1, y1 = (round(float(v)) for v in found.boxes_xyxy_px[index])
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thick)
            name = label_name(int(found.labels[index]), labels)
            number = f" #{track}" if track >= 0 else ""
            _write(canvas, f"{name}{number} {found.scores[index]:.2f}", (x0, y0), scale, color)
    _write(canvas, line, (0, canvas.shape[0]), scale, (255, 255, 255))
    return canvas


def _write(canvas: Pixels, text: str, corner: tuple[int, int], scale: float, color: tuple[int, int, int]) -> None:
    """Write black text on a filled box that stands on ``corner``, or lies at the frame's top."""
    cv2 = opencv()
    text = printable(text).encode("ascii", "replace").decode()  # its fonts have no other signs
    thick = max(1, round(scale))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    left = max(0, min(corner[0], canvas.shape[1] - width))
    top = max(0, corner[1] - height - below - 2)
    cv2.rectangle(canvas, (left, top), (left + width, top + height + below + 2), color, -1)
    cv2.putText(canvas, text, (left, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thick, cv2.LINE_AA)
