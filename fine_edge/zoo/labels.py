"""The 80 COCO class names in the order of contiguous indices."""

# COCO's own ids run from 1 to 90 with gaps; an index here is the place in this order.
_COCO = """
    person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;
    parking meter;bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;
    handbag;tie;suitcase;frisbee;skis;snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;
    surfboard;tennis racket;bottle;wine glass;cup;fork;knife;spoon;bowl;banana;apple;sandwich;orange;
    broccoli;carrot;hot dog;pizza;donut;cake;chair;couch;potted plant;bed;dining table;toilet;tv;
    laptop;mouse;remote;keyboard;cell phone;microwave;oven;toaster;sink;refrigerator;book;clock;vase;
    scissors;teddy bear;hair drier;toothbrush
"""

COCO_LABELS: tuple[str, ...] = tuple(name.strip() for name in _COCO.split(";"))


_CITYSCAPES = """
    road;sidewalk;building;wall;fence;pole;traffic light;traffic sign;vegetation;terrain;sky;person;rider;car;truck;
    bus;train;motorcycle;bicycle
"""

CITYSCAPES_LABELS: tuple[str, ...] = tuple(name.strip() for name in _CITYSCAPES.split(";"))


# The 53 kinds of stuff of COCO's panoptic task.
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
# The labels of the detector, then those of the semantic head, for which all things are one class, the last.
COCO_PANOPTIC_LABELS: tuple[str, ...] = (BACKGROUND, *COCO_LABELS, *COCO_STUFF, THINGS)
