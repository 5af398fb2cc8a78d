"""Shares the capacity of this process fairly between tenants, which take turns."""
