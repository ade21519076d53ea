"""Networks that come with the toolkit: the article's, rebuilt from a checkpoint's tensors, and a RefineNet with maps as outputs."""
