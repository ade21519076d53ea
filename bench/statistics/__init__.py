"""Figures with confidence intervals from samples on several levels: processes, rounds and calls."""
