"""Accuracy of the very artifact that is timed."""
