"""ONNX graphs: opening, changing and measuring them. Nothing here needs PyTorch."""
