"""The kind ``regression``: one or more values per image, each in the unit of the task."""
