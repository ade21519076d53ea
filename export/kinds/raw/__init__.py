"""The kind ``raw``: nothing in the graph, each column of the tensor judged on its own spread."""
