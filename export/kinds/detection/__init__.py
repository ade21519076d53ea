"""Boxes with scores: several outputs of a network merged into one, decoded and, if asked for, suppressed in the graph."""
