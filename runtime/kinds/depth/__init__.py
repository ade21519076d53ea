"""The kind ``depth``: one value per pixel, in the unit of the task."""
