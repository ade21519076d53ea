"""The kind ``multilabel``: a sigmoid in the graph, each label judged by the logit behind it."""
