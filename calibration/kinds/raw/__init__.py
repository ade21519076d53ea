"""The kind ``raw``: no labels; two networks differ by a share of the spread of the tensor."""
