"""A graph cut into its backbone and its heads: where it is cut, proof that the parts are the whole, and what the cut costs."""
