"""The kind ``regression``: scale and offset in the graph, each value judged on its own spread."""
