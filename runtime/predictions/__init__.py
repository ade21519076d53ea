"""What comes out: decoded outputs, maps resampled to the image, and summaries."""
