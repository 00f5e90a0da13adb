"""COCO's panoptic classes: the 80 things of detection, 53 kinds of stuff, and one class for all things together.

A panoptic detector has two heads with classes of their own. Both give indices into one tuple,
:data:`COCO_PANOPTIC_LABELS`: its instances those of torchvision's detectors (0 is the background, 1 to 80 the things),
its semantic head the stuff behind them, and last "things", for pixels that it leaves to the instances.
"""

from __future__ import annotations

from fine_edge.zoo.coco import COCO_LABELS

_STUFF = """
    banner;blanket;bridge;cardboard;counter;curtain;door-stuff;floor-wood;flower;fruit;gravel;house;light;
    mirror-stuff;net;pillow;platform;playingfield;railroad;river;road;roof;sand;sea;shelf;snow;stairs;tent;towel;
    wall-brick;wall-stone;wall-tile;wall-wood;water-other;window-blind;window-other;tree-merged;fence-merged;
    ceiling-merged;sky-other-merged;cabinet-merged;table-merged;floor-other-merged;pavement-merged;mountain-merged;
    grass-merged;dirt-merged;paper-merged;food-other-merged;building-other-merged;rock-merged;wall-other-merged;
    rug-merged
"""

COCO_STUFF: tuple[str, ...] = tuple(name.strip() for name in _STUFF.split(";"))
BACKGROUND, THINGS = "__background__", "things"
COCO_PANOPTIC_LABELS: tuple[str, ...] = (BACKGROUND, *COCO_LABELS, *COCO_STUFF, THINGS)
