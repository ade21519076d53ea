"""From the start of a process to its first prediction."""
