"""`python -m ops.lab.bench`: starts a measurement.

The `gpu` command imports none of the packages that the other commands need, so that it runs on a
machine that only has torch and its companions.
"""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        from ops.lab.bench.gpu.command import main as measure_gpu

        sys.exit(measure_gpu(sys.argv[2:]))
    else:
        from ops.lab.bench.cli import main

        main()
