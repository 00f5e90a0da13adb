"""The paper's analyses of a detector: effective receptive fields, and heatmaps of its fusions."""
