"""torchvision's detectors with a feature pyramid: RetinaNet and FCOS, Faster and Mask R-CNN."""

from fine_edge.zoo.torchvision.family import TorchvisionDetector
from fine_edge.zoo.torchvision.fpn import inject

__all__ = ["FAMILY", "TorchvisionDetector", "inject"]

FAMILY = TorchvisionDetector()
