"""Two results beside one another: what changed, whether it is more than a limit allows, and whether they may be compared at all."""
