"""Files: what others wrote is read within bounds, what we write comes whole or not at all."""
