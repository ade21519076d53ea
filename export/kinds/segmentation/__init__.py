"""The kind ``segmentation``: resizing and the best class in the graph, judged by the logits and by margins."""
