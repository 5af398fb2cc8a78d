"""Clients' operations on adapters: register, upload, try out, pin and list them."""
