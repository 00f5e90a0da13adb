"""Training a detector of the zoo on boxes in COCO's format, by transformers' Trainer.

A detector in training gets its pictures preprocessed exactly as its exported graph will. The result is a checkpoint
that every other command takes as ``--weights``.
"""
