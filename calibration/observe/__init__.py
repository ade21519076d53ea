"""A graph's activations over many images: statistics, histograms, and the ranges chosen from them."""
