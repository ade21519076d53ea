"""Predictions made visible: pictures, colours and video."""
