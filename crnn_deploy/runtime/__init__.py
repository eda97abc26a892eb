"""Images in, text out: what runs in production. It needs numpy, OpenCV, click and one inference library."""
