"""The kind ``keypoints``: labels are points of the image, judged by PCK and OKS."""
