"""Read the bodies of requests: pictures, forms, JSON and compressed ones."""
