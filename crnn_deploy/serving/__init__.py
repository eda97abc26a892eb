"""A recogniser behind a port: HTTP, batches of the images of many requests, a page."""
