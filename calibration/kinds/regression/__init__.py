"""The kind ``regression``: labels are numbers, judged by the mean absolute error."""
