"""How long each graph takes on each backend here: measured in turn, kept beside the manifest, and what loading chooses by."""
