"""Turns between tenants for the work that requests cost this process."""
