"""Images of requests: found in bodies, fetched and checked. Nothing here decodes pixels."""
