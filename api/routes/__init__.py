"""HTTP routes, one file per group. `api/app.py` lists them, and each declares a guard."""
