"""What the machine reports about itself: processor, clocks, throttling, other work on it, and its power meters."""
