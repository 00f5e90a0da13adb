"""What each layer of an engine costs, and which part of the detector it belongs to."""
