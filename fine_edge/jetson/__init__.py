"""State of a Jetson: clocks, power mode, heat, power and memory, and whether a measurement on it is valid.

Data goes one way: :mod:`board` and :mod:`tegrastats` read, :mod:`sampler` collects, :mod:`verdict` judges.
All files are read without root and below a folder, so that a recorded tree can be replayed on any machine.
What a board's tools wrote into files is read by :mod:`board_file`, and shown by :mod:`tables` and :mod:`picture`.
"""
