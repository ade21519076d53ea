"""The kind ``rotation``: six values made orthogonal in the graph."""
