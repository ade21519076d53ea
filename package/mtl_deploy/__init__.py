"""Deploy multi-task vision networks: one backbone, several heads, one forward pass."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent, unless the application sets logging up
