"""Predictions for the eye: pictures, colours and video."""
