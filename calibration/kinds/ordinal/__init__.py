"""The kind ``ordinal``: labels are ranks by number, value or name, judged by the mean absolute error."""
