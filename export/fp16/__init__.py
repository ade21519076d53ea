"""The FP16 graphs of an export, and the search for layers that must stay in FP32."""
