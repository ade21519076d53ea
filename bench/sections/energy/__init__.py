"""The energy of an image, where the machine can measure it."""
