"""Networks that are rebuilt from the tensors of a checkpoint alone, without the code that trained them."""
