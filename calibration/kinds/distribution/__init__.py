"""The kind ``distribution``: labels are numbers, judged by the mean absolute error, of angles on the circle."""
