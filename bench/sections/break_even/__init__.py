"""From how many tasks, and from which batch, sharing pays."""
