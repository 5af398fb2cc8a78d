from pathlib import Path

import pytest

from ops.lab.bench.servers.model_servers import check_vllm
from shared.errors import SettingsError


def test_a_venv_without_vllm_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"bin/vllm doesn't exist; ops/docs/benchmarks.md"):
        check_vllm(tmp_path)
