"""Many images on one machine: decoded in threads, run in batches, and written as rows, with those that are broken among them."""
