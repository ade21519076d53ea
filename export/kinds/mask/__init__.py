"""The kind ``mask``: a resize and a comparison in the graph, judged by the logits and by margins."""
