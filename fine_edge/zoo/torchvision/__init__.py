"""Detectors of torchvision with a feature pyramid: RetinaNet and FCOS, Faster and Mask R-CNN."""
