"""What runs in production takes an artifact: the files that each server wants, written whole and listed by hash."""
