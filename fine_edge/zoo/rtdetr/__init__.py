"""RT-DETR of transformers: build, read, lower."""
