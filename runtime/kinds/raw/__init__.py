"""The kind ``raw``: the tensor of the network as it is, without a meaning."""
