"""Uploaded files: their bytes, their form fields, and who may read them."""
