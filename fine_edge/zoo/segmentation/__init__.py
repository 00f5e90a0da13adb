"""Semantic and Panoptic FPN on torchvision's parts; the paper's Table 7."""

from fine_edge.zoo.segmentation.fpn_segmenter import FpnSegmenter

__all__ = ["FAMILY", "FpnSegmenter"]

FAMILY = FpnSegmenter()
