"""How images are prepared, as in training: the command's options, and presets of torchvision's weights and of timm."""
