"""A result as text for a terminal: the answer first, one line for each other part, and every table with ``--details``."""
