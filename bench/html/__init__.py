"""The report as one HTML page without scripts: its frame, its style and the elements that sections are rendered with."""
