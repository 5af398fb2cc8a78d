"""`python -m ops.bench`: does the same as `python -m ops.lab.bench`, which it was called before."""

import runpy

runpy.run_module("ops.lab.bench", run_name="__main__", alter_sys=True)
