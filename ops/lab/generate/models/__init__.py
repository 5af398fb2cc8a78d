"""Tries tiny models of every type, and generates the page of model types."""
