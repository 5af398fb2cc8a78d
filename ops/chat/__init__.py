"""The terminal client `lorikeet chat`."""
