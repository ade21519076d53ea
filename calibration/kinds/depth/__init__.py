"""The kind ``depth``: labels are maps of numbers, judged by the root mean square error."""
