"""Tests whether an exported graph still finds what the PyTorch model finds."""
