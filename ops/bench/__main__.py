"""`python -m ops.bench`: the former name of `python -m ops.lab.bench`. It does the same."""

import runpy

runpy.run_module("ops.lab.bench", run_name="__main__", alter_sys=True)
