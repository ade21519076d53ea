"""Boxes with scores and classes, and with landmarks, keypoints or mask coefficients where the network gives them."""
