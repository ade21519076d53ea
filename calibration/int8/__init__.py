"""INT8 graphs: where Q/DQ go in both styles, quantized weights, and how well ranges fit."""
