"""The steps of an export, each with its line of progress. They load torch and onnx; ``pipeline.py`` puts them in order."""
