"""The kind ``distribution``: a softmax and its expectation in the graph, judged by the number and by the logits behind it."""
