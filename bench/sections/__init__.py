"""What is measured besides latency: one folder per section, listed in the registry; ``base.py`` says what a section is."""
