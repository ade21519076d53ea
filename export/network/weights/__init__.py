"""From what a file holds to a network with its weights: which of them, under which names, and what is left."""
