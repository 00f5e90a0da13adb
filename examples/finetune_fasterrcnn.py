"""FINE in a Faster R-CNN of torchvision, trained by its own losses, then exported by fine_edge.

python examples/finetune_fasterrcnn.py train.json images/ --weights fasterrcnn_resnet50_fpn_coco.pth --out runs/frcnn
python -m fine_edge.export fasterrcnn_r50_fine --weights runs/frcnn/fine_edge.safetensors
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from coco_folder import CocoFolder
from torch.utils.data import DataLoader
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.inject import inject_fine

COCO_CLASSES = 91


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", type=Path, help="torchvision's COCO weights (default: start from nothing)")
    parser.add_argument("--side", type=int, default=800)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/fasterrcnn"))
    args = parser.parse_args()

    data = CocoFolder(args.annotations, args.images, args.side)
    labels = ("__background__", *data.names)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=COCO_CLASSES, min_size=args.side, max_size=args.side
    )
    if args.weights:
        model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.roi_heads.box_predictor = FastRCNNPredictor(model.roi_heads.box_predictor.cls_score.in_features, len(labels))
    inject_fine(model)  # starts as the identity: the pretrained detector is what it was

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loader = DataLoader(data, args.batch, shuffle=True, collate_fn=list)
    model.train()
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for step, samples in enumerate(itertools.islice(epochs, args.steps)):
        targets = [{"boxes": boxes, "labels": classes + 1} for _, boxes, classes in samples]  # 0 is the background
        losses = model([image for image, _, _ in samples], targets)
        loss = sum(losses.values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimiser.step()
        print(f"step {step + 1}/{args.steps}: loss {loss.item():.4f}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    save(model, args.out / "fine_edge.safetensors", name="fasterrcnn_r50_fine", labels=labels)


if __name__ == "__main__":
    main()
