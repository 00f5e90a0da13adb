"""The commands of `fine-edge`, one file each."""
