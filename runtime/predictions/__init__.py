"""What comes out: decoded outputs, maps brought back to the image, and summaries."""
