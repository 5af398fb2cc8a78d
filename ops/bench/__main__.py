"""`python -m ops.bench`: the earlier name of `python -m ops.lab.bench`."""

import runpy

runpy.run_module("ops.lab.bench", run_name="__main__", alter_sys=True)
