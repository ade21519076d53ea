"""CUDA's driver API: which GPU there is, contexts, memory, streams, and callers' arrays."""
