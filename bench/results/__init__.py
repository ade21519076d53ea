"""A result as data: the file that is written and read, its tables, and the comparison of two results."""
