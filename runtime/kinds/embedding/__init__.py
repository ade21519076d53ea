"""The kind ``embedding``: a vector that is compared with those of other images."""
