"""What a Jetson says about itself: clocks, power mode, heat, power, memory, and whether a measurement may be quoted.

Data goes one way: :mod:`board` and :mod:`tegrastats` read, :mod:`sampler` collects, :mod:`verdict` judges.
Everything is read without root and below a folder, so that a recorded tree can be replayed on any machine.
"""
