"""Semantic and Panoptic FPN on torchvision's parts; the paper's Table 7."""
