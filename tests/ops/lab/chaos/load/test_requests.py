"""Requests are drawn from a seed."""

from collections import Counter

from ops.lab.chaos.load.requests import (
    STALLED_CHOICES,
    WEIGHTS,
    Manner,
    RequestSource,
)

MODELS = ("base", "adapter-0")


def source(client: int = 1, **options: object) -> RequestSource:
    return RequestSource(7, client, models=MODELS, lengths=(10, 20), **options)  # type: ignore[arg-type]


def test_the_seed_determines_the_requests_and_no_two_are_equal() -> None:
    first, again = source(), source()
    drawn = [first.draw() for _ in range(200)]
    assert drawn == [again.draw() for _ in range(200)]
    others = [source(client=2).draw() for _ in range(1)]
    for part in ("key", "question"):
        assert len({getattr(request, part) for request in [*drawn, *others]}) == 201


def test_every_manner_occurs() -> None:
    drawn = source()
    manners = Counter(drawn.draw().manner for _ in range(1000))
    assert set(manners) == set(WEIGHTS)


def test_bodies_and_headers_express_the_manner() -> None:
    drawn = source()
    assert drawn.draw(Manner.BACKGROUND).body["background"] is True
    assert drawn.draw(Manner.STREAM).body["stream"] is True
    assert drawn.draw(Manner.WHOLE).body["stream"] is False
    assert drawn.draw(Manner.STALL).question.n == STALLED_CHOICES
    away = drawn.draw(Manner.STAY_AWAY)
    assert away.headers == {"Idempotency-Key": away.key, "X-Lorikeet-On-Disconnect": "continue"}
