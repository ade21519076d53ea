"""What all commands share: one way to start and end, progress, tables, and text that no terminal executes."""
