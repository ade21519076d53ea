"""What a network's forward takes and returns: outputs by path, the tasks that read them, and the first runs that show both."""
