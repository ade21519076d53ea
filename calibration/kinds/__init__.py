"""Kinds of tasks, one folder each: labels, metrics, budgets. The modules beside them hold what several kinds share."""
