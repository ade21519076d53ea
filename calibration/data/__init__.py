"""Images and labels for calibration: finding, reading, splitting and generating them."""
