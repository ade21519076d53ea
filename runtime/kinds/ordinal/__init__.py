"""The kind ``ordinal``: one of several ranks for each image, by how many thresholds the network sees passed."""
