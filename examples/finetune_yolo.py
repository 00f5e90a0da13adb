"""FINE in a YOLOv8 of ultralytics, trained by ultralytics' trainer, then exported by fine_edge.

python examples/finetune_yolo.py data.yaml --weights yolov8s.pt --out runs/yolo
python -m fine_edge export yolov8s_fine --weights runs/yolo/train/weights/best.pt

``data.yaml`` is ultralytics' description of a data set. ultralytics is licensed under the AGPL-3.0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from fine_edge.zoo.inject import inject_fine


class FineTrainer(DetectionTrainer):
    """ultralytics' trainer builds its model itself: here FINE goes into it, and then the weights, FINE's included."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = inject_fine(super().get_model(cfg, None, verbose))
        if weights is not None:
            model.load(weights)
        return model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="ultralytics' data.yaml")
    parser.add_argument("--weights", default="yolov8s.yaml", help="yolov8s.pt (default: start from nothing)")
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/yolo"))
    args = parser.parse_args(argv)

    YOLO(args.weights).train(
        trainer=FineTrainer,
        data=str(args.data.resolve()),
        imgsz=args.side,
        batch=args.batch,
        epochs=args.epochs,
        project=str(args.out.resolve()),
        name="train",
        exist_ok=True,
        plots=False,
    )


if __name__ == "__main__":
    main()
