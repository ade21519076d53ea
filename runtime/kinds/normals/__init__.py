"""The kind ``normals``: a unit vector of three components for each pixel."""
