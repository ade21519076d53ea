"""The kind ``multiclass``: a softmax in the graph, judged by the logits behind it."""
