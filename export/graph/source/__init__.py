"""A camera's frames inside the graph: their colours, their resizing and their placing, as nodes before the network."""
