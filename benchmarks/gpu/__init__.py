"""What the scripts that need an NVIDIA GPU share."""
