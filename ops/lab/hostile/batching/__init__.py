"""Parts of `batches.py`: a run of all tenants' batches, and the client that each tenant uses."""
