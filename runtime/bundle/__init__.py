"""A bundle: its manifest, signature and tasks, and how it is written and signed."""
