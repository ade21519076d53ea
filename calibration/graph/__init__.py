"""Graphs as every later step reads them: types on all tensors, constants as initializers, and products that are no layers."""
