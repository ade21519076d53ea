"""How well each task is done at each precision: metrics, paired differences and their intervals."""
