"""The kind ``vector``: a factor and an offset for each value."""
