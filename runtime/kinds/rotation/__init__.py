"""The kind ``rotation``: a rotation matrix, from nine values or from six."""
