"""HTTP requests to servers that clients name: only to public addresses, and with limits."""
