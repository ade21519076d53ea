"""The kind ``depth``: scaling, resizing and clipping in the graph, judged by the spread of the values."""
