"""Loads a model, and prints its weights' memory and the largest memory in use meanwhile, in bytes.

Only anonymous memory counts, not pages of the model's files. A thread reads it every half a
millisecond, so peaks that last shorter may be missed.

    python peak_memory.py WARM_UP MODEL [int8]     # WARM_UP is loaded first, and isn't counted
"""

import gc
import re
import sys
import threading
import time
from pathlib import Path

from worker.model.loader import load_model
from worker.model.quantise import Quantize

STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) << 10


def main(warm_up: str, model: str, quantize: Quantize | None) -> None:
    load_model(warm_up, dtype="bfloat16", device="cpu", quantize=quantize)
    gc.collect()
    before, peak, is_done = anonymous_bytes(), 0, False

    def watch() -> None:
        nonlocal peak
        while not is_done:
            peak = max(peak, anonymous_bytes())
            time.sleep(0.0005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    loaded = load_model(model, dtype="bfloat16", device="cpu", quantize=quantize)
    is_done = True
    thread.join()
    sys.stdout.write(f"{loaded.weight_bytes} {peak - before}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "int8" if sys.argv[3:] else None)
