"""Live detection: sources of frames, the stages that run side by side, and where the drawn frames go."""
