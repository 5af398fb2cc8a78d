"""Commands about the access of clients."""
