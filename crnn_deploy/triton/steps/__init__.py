"""What runs inside Triton's Python backend: each module holds one step's `TritonPythonModel`."""
