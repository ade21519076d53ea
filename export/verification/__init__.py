"""Proof that graphs say what the network says: images, expected outputs, errors and what decides."""
