"""The kind ``distribution``: one number for each image, the mean of values that a softmax weights."""
