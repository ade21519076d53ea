"""Proof that graphs compute what the network computes: images, expected outputs, errors, and what passes."""
