"""``mtl-doctor``: what this machine has, which commands work on it, and which files of a bundle run here, as text and as JSON."""
