"""The 19 classes that Cityscapes is evaluated on, in the order of its training indices."""

_NAMES = """
    road;sidewalk;building;wall;fence;pole;traffic light;traffic sign;vegetation;terrain;sky;person;rider;car;truck;
    bus;train;motorcycle;bicycle
"""

CITYSCAPES_LABELS: tuple[str, ...] = tuple(name.strip() for name in _NAMES.split(";"))
