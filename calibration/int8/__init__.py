"""INT8 graphs: where Q/DQ go in both styles, quantized weights, and what their ranges cover."""
