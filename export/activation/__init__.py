"""Which activations, such as a softmax, the network itself applies to its outputs: found in the graph, checked by values."""
