"""Deploy multi-task vision networks: one backbone, several heads, one forward pass."""

__version__ = "0.1.0"
