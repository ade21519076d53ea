"""Images and labels for calibration: found, read, split evenly, or generated."""
