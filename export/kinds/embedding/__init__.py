"""The kind ``embedding``: unit length in the graph, on request."""
