"""What the machine says of itself: processor, clocks, throttling, neighbours, and meters of power."""
