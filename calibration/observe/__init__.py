"""A graph's activations over many images: statistics, histograms, and the ranges that are chosen from them."""
