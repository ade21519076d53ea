"""How the cost grows with threads and with heads."""
