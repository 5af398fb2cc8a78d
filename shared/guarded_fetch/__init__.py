"""HTTP requests to servers that clients name, within bounds and to public addresses only."""
