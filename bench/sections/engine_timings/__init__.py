"""What a GPU does inside a call of an engine."""
