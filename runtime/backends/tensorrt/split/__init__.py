"""A network in parts on TensorRT: engines of the backbone and of each head that share a GPU's memory."""
