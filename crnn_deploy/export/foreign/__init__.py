"""Somebody else's ONNX file: how it is fed, what it puts out, and a manifest for it; without PyTorch."""
