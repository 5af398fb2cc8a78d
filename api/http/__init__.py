"""HTTP handling that all routes share: bodies, headers, limits and errors."""
