"""The kind ``segmentation``: labels are maps of class indices, judged by mean IoU."""
