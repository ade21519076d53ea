"""What the network has already applied to its outputs, such as a softmax: found in the graph and checked against values."""
