"""The kind ``keypoints``: named points of the image with a score each, from one heatmap per point."""
