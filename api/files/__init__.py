"""Uploaded files: their content, their form fields, and the rights to read them."""
