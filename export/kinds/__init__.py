"""Kinds of tasks, one folder each: nodes in the graph, verification. The modules beside them hold what several kinds share."""
