"""Estimates the latency of a model on a board that is not here."""
