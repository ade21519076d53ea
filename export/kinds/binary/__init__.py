"""The kind ``binary``: a sigmoid or a softmax in the graph, judged by the logits behind it."""
