import pytest

from shared.protocol.ids import job_id_of


@pytest.mark.parametrize("given", ["3f0c", "chatcmpl-3f0c", "cmpl-3f0c"])
def test_a_job_is_named_by_its_own_id_or_by_its_answers(given: str) -> None:
    assert job_id_of(given) == "3f0c"
