"""The kind ``vector``: named values, judged by the mean absolute error or the normalised mean error of points."""
