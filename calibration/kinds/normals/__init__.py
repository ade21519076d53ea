"""The kind ``normals``: labels are maps of vectors, judged by the mean angle."""
