"""The kind ``multilabel``: several labels for each image, each of which holds or not."""
