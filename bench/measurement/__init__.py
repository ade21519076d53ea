"""Measuring latency: shuffled rounds of calls, and proof that contestants agree before anything is timed."""
