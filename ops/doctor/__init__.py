"""`lorikeet doctor`: checks what `lorikeet up` needs. `plan.py` must match `commands/up.py`."""
