"""What runs inside Triton's Python backend: each module but the shared ones holds a step's model."""
