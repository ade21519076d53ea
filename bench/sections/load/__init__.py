"""Behaviour under load: requests that arrive at random, and the latency that they see."""
