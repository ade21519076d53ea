"""What is measured beside latency: one folder per section, listed in the registry; ``base.py`` says what a section is."""
