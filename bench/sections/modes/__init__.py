"""Graphs on processors, run for latency and for throughput, called from several threads at once."""
