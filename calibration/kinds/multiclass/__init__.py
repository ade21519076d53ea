"""The kind ``multiclass``: labels are one of several classes, judged by accuracy."""
