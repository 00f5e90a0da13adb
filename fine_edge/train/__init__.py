"""Training a detector of the zoo on boxes in COCO's format, by transformers' Trainer.

What is trained sees pictures exactly as its exported graph will, and what comes out is a checkpoint that every other
command takes as ``--weights``.
"""
