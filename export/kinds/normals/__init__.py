"""The kind ``normals``: resizing and unit length in the graph, judged by margins."""
