"""Intervals for what was measured on several levels: starts, rounds and calls."""
