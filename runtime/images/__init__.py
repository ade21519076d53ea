"""What goes in: image files, resizing and placement, as the network was trained."""
