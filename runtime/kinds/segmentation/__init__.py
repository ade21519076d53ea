"""The kind ``segmentation``: one of several classes for each pixel."""
