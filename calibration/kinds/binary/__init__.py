"""The kind ``binary``: labels are one of two classes, judged by accuracy."""
