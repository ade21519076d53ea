"""The plots of a result as files of their own, for a thesis or a paper: SVG, and PNG where cairosvg is installed."""
