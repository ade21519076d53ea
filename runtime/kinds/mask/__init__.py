"""The kind ``mask``: yes or no for each pixel, from one channel or two."""
