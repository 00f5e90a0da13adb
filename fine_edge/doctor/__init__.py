"""The page of ``python -m fine_edge doctor``: what this machine has and lacks, with hints."""
