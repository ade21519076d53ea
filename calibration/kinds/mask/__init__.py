"""The kind ``mask``: labels are pictures of 0 and 1, judged by IoU."""
