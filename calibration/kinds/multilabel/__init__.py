"""The kind ``multilabel``: labels are one column per label of 0 and 1, judged by mean accuracy."""
