"""Graphs as all steps read them: types on all tensors, constants as initializers, and products that are not layers."""
