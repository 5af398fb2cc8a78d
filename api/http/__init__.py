"""HTTP itself, the same for every route: bytes, headers, limits, errors."""
