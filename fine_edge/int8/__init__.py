"""INT8: where QuantizeLinear and DequantizeLinear go in a graph, what they cost and lose, and whether they pay."""
