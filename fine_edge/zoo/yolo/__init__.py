"""YOLO of ultralytics (extra yolo, AGPL-3.0)."""
