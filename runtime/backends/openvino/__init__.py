"""OpenVINO: graphs compiled for a processor, one per shape of the images, and their cache on disk."""
