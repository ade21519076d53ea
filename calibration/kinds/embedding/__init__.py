"""The kind ``embedding``: vectors, judged by pairs of images that show the same or not."""
