"""The kind ``binary``: yes or no for each image, from one logit or two."""
