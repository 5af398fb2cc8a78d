import orjson

from shared.protocol.codec import decode_worker_info, encode_worker_info
from shared.protocol.workers import WorkerInfo

INFO = WorkerInfo(
    model="m",
    device="cpu",
    dtype="float32",
    version="1",
    max_num_seqs=8,
    kv_tokens=100,
    weight_bytes=3,
)


def test_a_worker_description_is_decoded_as_it_was_encoded() -> None:
    assert decode_worker_info(encode_worker_info(INFO)) == INFO


def test_unknown_fields_of_a_newer_worker_are_dropped() -> None:
    wire = orjson.loads(encode_worker_info(INFO)) | {"from_the_future": 1}
    assert decode_worker_info(orjson.dumps(wire)) == INFO
