"""Plots as SVG text: a canvas, axes, and the plots drawn on them."""
