"""FINE in an RT-DETR of transformers, trained by transformers' Trainer, then exported by fine_edge.

python examples/finetune_rtdetr.py train.json images/ --weights path/to/rtdetr_r18vd --out runs/rtdetr
python -m fine_edge export rtdetr_r18_fine --weights runs/rtdetr/fine_edge.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from coco_folder import CocoFolder
from torchvision.ops import box_convert
from transformers import RTDetrForObjectDetection, Trainer, TrainingArguments

from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.inject import inject_fine
from fine_edge.zoo.rtdetr.family import rtdetr_config


def collate(samples: list) -> dict:
    """As RT-DETR's loss takes them: boxes as centre and size, normalised."""
    side = samples[0][0].shape[-1]
    labels = [
        {"class_labels": classes, "boxes": box_convert(boxes, "xyxy", "cxcywh") / side} for _, boxes, classes in samples
    ]
    return {"pixel_values": torch.stack([image for image, _, _ in samples]), "labels": labels}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", help="folder of a pretrained RT-DETR R18 (default: start from nothing)")
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/rtdetr"))
    args = parser.parse_args(argv)

    data = CocoFolder(args.annotations, args.images, args.side)
    if args.weights:  # with the configuration that lies beside them, but for the classes
        names = dict(enumerate(data.names))
        model = RTDetrForObjectDetection.from_pretrained(
            args.weights,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            ignore_mismatched_sizes=True,
        )
    else:
        model = RTDetrForObjectDetection(rtdetr_config("r18", len(data.names)))
    inject_fine(model)  # starts as the identity: the pretrained detector is what it was

    settings = TrainingArguments(
        output_dir=str(args.out),
        per_device_train_batch_size=args.batch,
        max_steps=args.steps,
        learning_rate=1e-4,
        max_grad_norm=0.1,
        logging_steps=max(1, args.steps // 20),
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    Trainer(model=model, args=settings, train_dataset=data, data_collator=collate).train()
    save(model, args.out / "fine_edge.safetensors", name="rtdetr_r18_fine", labels=data.names)


if __name__ == "__main__":
    main()
