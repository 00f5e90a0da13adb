"""What follows a network's dense outputs, with fixed shapes: suppression, pooling of regions, selection."""
