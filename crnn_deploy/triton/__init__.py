"""A model repository for NVIDIA Triton Inference Server, and the Python steps that run inside that server."""
