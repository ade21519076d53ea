"""What is measured beside latency: one module or folder for each section of the report, listed in the registry."""
