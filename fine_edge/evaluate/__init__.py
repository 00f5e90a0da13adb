"""Measures the accuracy of the same artifact that the bench times."""
