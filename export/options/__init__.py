"""What ``mtl-export`` was asked for: plain data, checked when it is created. Each topic parses its options in its ``cli.py``."""
