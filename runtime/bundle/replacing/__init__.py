"""Taking a bundle's place: one writer at a time, a whole bundle for every reader, and clean-up after writers that died."""
