"""The kind ``rotation``: rotation matrices, judged by the angle between them."""
