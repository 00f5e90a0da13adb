"""Ask a Triton server what is in pictures: a line of JSON for each object. Needs tritonclient[http], numpy, Pillow.

    python client.py street.jpg --url localhost:8000 --threshold 0.5

What the model takes and gives is read from deploy.json beside this file. The preprocessing is the model's own:
bilinear, with Pillow's filter or of the four nearest pixels, as deploy.json says.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]


def _resized(pixels: Pixels, height: int, width: int, antialias: bool) -> NDArray[np.float64]:
    """Return the picture (H, W, 3) resized, its values still 0 to 255."""
    source_height, source_width = pixels.shape[:2]
    if antialias or (source_height, source_width) == (height, width):
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized, dtype=np.float64)
    # An affine transform takes the four nearest pixels, where resize would antialias.
    step = (source_width / width, 0.0, 0.0, 0.0, source_height / height, 0.0)
    how = (width, height), Image.Transform.AFFINE, step, Image.Resampling.BILINEAR
    channels = [Image.fromarray(pixels[..., channel].astype(np.float32)).transform(*how) for channel in range(3)]
    return np.stack([np.asarray(channel, dtype=np.float64) for channel in channels], axis=2)


def to_input(pixels: Pixels, settings: dict[str, Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Turn a picture (H, W, 3) uint8 RGB into the model's input.

    Returns:
        The input for one picture, and the scale and offset by which its boxes lie in it: input pixel = picture pixel
        * scale + offset, both as x, y, x, y.
    """
    description, how = settings["inputs"][0], settings["preprocessing"]
    if description["name"] == "frame":  # the graph does the rest, and gives boxes in pixels of the frame
        height, width = description["shape"][1:3]
        if pixels.shape[:2] != (height, width):
            raise SystemExit(f"the model takes frames of {width}x{height}, not {pixels.shape[1]}x{pixels.shape[0]}")
        ordered = pixels[..., ::-1] if how["color"] == "BGR" else pixels
        return np.ascontiguousarray(ordered)[None], np.ones(4), np.zeros(4)
    height, width = description["shape"][2:4]
    source_height, source_width = pixels.shape[:2]
    new_height, new_width = height, width
    if how["resize"] == "letterbox":
        ratio = min(height / source_height, width / source_width)
        # As ultralytics rounds, or as torchvision does.
        rounded = round if how["align"] == "center" else int
        new_height, new_width = max(1, rounded(source_height * ratio)), max(1, rounded(source_width * ratio))
    centered = how["align"] == "center"
    top, left = ((height - new_height) // 2, (width - new_width) // 2) if centered else (0, 0)
    canvas = _resized(pixels, new_height, new_width, how["antialias"])
    mean, std = np.array(how["mean"]), np.array(how["std"])
    # Padding of null is zero behind the normalisation: the level that becomes zero there.
    level = mean / how["scale"] if how["pad_value"] is None else np.full(3, float(how["pad_value"]))
    whole = np.broadcast_to(level, (height, width, 3)).copy()
    whole[top : top + new_height, left : left + new_width] = canvas
    values = ((whole * how["scale"] - mean) / std).astype(np.float32)
    scale = np.array([new_width / source_width, new_height / source_height] * 2)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None]), scale, np.array([left, top] * 2, dtype=np.float64)


def objects(
    outputs: Outputs, scale: NDArray[np.float64], offset: NDArray[np.float64], pixels: Pixels, threshold: float
) -> list[dict[str, Any]]:
    """Return the objects of the first picture of a batch, best first, boxes in pixels of the picture."""
    # x, y, x, y: a box may reach beyond the picture into the padding.
    limit = np.array([pixels.shape[1], pixels.shape[0]] * 2)
    labels, boxes, scores = (outputs[name][0] for name in ("labels", "boxes_xyxy", "scores"))
    found = []
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] >= threshold and scores[row] > 0:  # rows that find nothing have score 0
            box = np.clip((boxes[row] - offset) / scale, 0, limit)
            corners = [round(float(corner), 2) for corner in box]
            found.append({"label_index": int(labels[row]), "score": float(scores[row]), "box_xyxy_px": corners})
    return found


def ask(url: str, name: str, tensor: NDArray[Any], settings: dict[str, Any]) -> Outputs:
    """Send an input to the server, and return every output."""
    import tritonclient.http as triton
    from tritonclient.utils import np_to_triton_dtype

    description = settings["inputs"][0]
    count = 1 if "batches" in settings else description["shape"][0]
    batch = np.repeat(tensor, count, axis=0)  # a static batch is filled with the same picture
    given = triton.InferInput(description["name"], list(batch.shape), np_to_triton_dtype(batch.dtype))
    given.set_data_from_numpy(batch)
    wanted = [triton.InferRequestedOutput(output["name"]) for output in settings["outputs"]]
    answer = triton.InferenceServerClient(url).infer(name, [given], outputs=wanted)
    return {output["name"]: answer.as_numpy(output["name"]) for output in settings["outputs"]}


def main(argv: list[str]) -> int:
    """Ask for every picture; return the exit code."""
    listing = json.loads(Path(__file__).with_name("deploy.json").read_text(encoding="utf-8"))
    settings = listing["settings"]
    parser = argparse.ArgumentParser(description="Ask a Triton server what is in pictures: a line of JSON an object.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--url", default="localhost:8000", help="of the server's HTTP port (default: %(default)s)")
    parser.add_argument("--model", default=listing["model"], help="name on the server (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score (default: %(default)s)")
    given = parser.parse_args(argv)
    for image in given.images:
        pixels = np.asarray(Image.open(image).convert("RGB"))
        tensor, scale, offset = to_input(pixels, settings)
        outputs = ask(given.url, given.model, tensor, settings)
        if settings["task"] not in ("detection", "instance"):  # maps of pixels, in the network's input
            np.savez(image.with_suffix(".npz"), allow_pickle=False, **outputs)
            sys.stdout.write(json.dumps({"image": str(image), "outputs": str(image.with_suffix(".npz"))}) + "\n")
            continue
        # A class without a name, of a model with more outputs than names, is still shown.
        for found in objects(outputs, scale, offset, pixels, given.threshold):
            index = found["label_index"]
            name = settings["labels"][index] if 0 <= index < len(settings["labels"]) else f"class {index}"
            sys.stdout.write(json.dumps({"image": str(image), "label": name, **found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
