"""Video as it comes: cameras, network streams, pipes and files as sources of frames, and the loop of ``mtl-infer`` over them."""
