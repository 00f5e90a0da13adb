"""Studies: variants of a detector, each trained with several seeds, evaluated, and compared seed by seed."""
