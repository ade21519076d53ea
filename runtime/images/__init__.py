"""What goes in: image files, resized and placed as in the network's training."""
