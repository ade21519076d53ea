"""Frames in at camera rate, results out in order: what waits, what runs when, and what is made of results before delivery."""
