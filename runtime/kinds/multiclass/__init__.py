"""The kind ``multiclass``: one of several classes for each image."""
