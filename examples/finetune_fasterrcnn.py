"""FINE in a Faster R-CNN of torchvision, trained by its losses and transformers' Trainer, exported by fine_edge.

python examples/finetune_fasterrcnn.py train.json images/ --weights fasterrcnn_resnet50_fpn_coco.pth --out runs/frcnn
python -m fine_edge export fasterrcnn_r50_fine --weights runs/frcnn/fine_edge.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from coco_folder import CocoFolder
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from transformers import Trainer, TrainingArguments

from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.inject import inject_fine

COCO_CLASSES = 91


class SummedLosses(nn.Module):
    """What Trainer takes: a forward pass that gives the loss."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list, targets: list) -> dict:
        return {"loss": sum(self.detector(images, targets).values())}


def collate(samples: list) -> dict:
    """As torchvision takes them; label 0 is the background."""
    targets = [{"boxes": boxes, "labels": classes + 1} for _, boxes, classes in samples]
    return {"images": [image for image, _, _ in samples], "targets": targets}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", type=Path, help="torchvision's COCO weights (default: start from nothing)")
    parser.add_argument("--side", type=int, default=800)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/fasterrcnn"))
    args = parser.parse_args(argv)

    data = CocoFolder(args.annotations, args.images, args.side)
    labels = ("__background__", *data.names)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=COCO_CLASSES, min_size=args.side, max_size=args.side
    )
    if args.weights:
        model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.roi_heads.box_predictor = FastRCNNPredictor(model.roi_heads.box_predictor.cls_score.in_features, len(labels))
    inject_fine(model)  # starts as the identity: the pretrained detector is what it was

    settings = TrainingArguments(
        output_dir=str(args.out),
        per_device_train_batch_size=args.batch,
        max_steps=args.steps,
        learning_rate=1e-4,
        max_grad_norm=10,
        logging_steps=max(1, args.steps // 20),
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    Trainer(model=SummedLosses(model), args=settings, train_dataset=data, data_collator=collate).train()
    save(model, args.out / "fine_edge.safetensors", name="fasterrcnn_r50_fine", labels=labels)


if __name__ == "__main__":
    main()
