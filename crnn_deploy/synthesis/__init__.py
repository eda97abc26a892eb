"""Text images drawn on the fly, from fonts and words of this machine."""
