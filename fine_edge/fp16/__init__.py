"""A study of half precision: what overflows or rounds off in a graph, and which nodes have to stay FP32."""
