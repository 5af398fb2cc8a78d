"""Modules and weights of the base model that adapters can change."""
