"""From a checkpoint to a proven ONNX file."""
