"""Preprocessing as the network was trained: the options, and presets of torchvision's weights and of timm."""
