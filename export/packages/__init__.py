"""Bundles in the formats of other engines."""
