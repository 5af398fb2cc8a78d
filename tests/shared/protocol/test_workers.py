import orjson

from shared.protocol.codec import decode_worker_info, encode_worker_info
from shared.protocol.workers import WorkerInfo

INFO = WorkerInfo(
    model="m", device="cpu", dtype="float32", version="1", max_num_seqs=8, weight_bytes=3
)


def test_what_a_worker_tells_of_itself_is_read_as_it_was_written() -> None:
    assert decode_worker_info(encode_worker_info(INFO)) == INFO


def test_what_a_younger_worker_tells_besides_is_passed_over() -> None:
    wire = orjson.loads(encode_worker_info(INFO)) | {"from_the_future": 1}
    assert decode_worker_info(orjson.dumps(wire)) == INFO
