"""The inbox of a client that reads too slowly."""

import pytest

from api.follow.reply_hub import Inbox, max_events
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState

ID = JobId("j")
ADMITTED = Admitted(job=ID, try_=1, prompt_tokens=3)
RETRY = Retry(job=ID, try_=1)
END = End(job=ID, try_=2, state=JobState.DONE)


def tokens(index: int, choice: int = 0) -> Tokens:
    return Tokens(job=ID, try_=1, choice=choice, index=index, ids=(index,), text="x")


def fill(inbox: Inbox, num_choices: int) -> list[Event]:
    """Put as many token events as fit, and return them."""
    events: list[Event] = [tokens(index) for index in range(max_events(num_choices))]
    for event in events:
        inbox.put(event)
    return events


async def test_events_that_fit_are_returned_once_and_in_order() -> None:
    inbox = Inbox(num_choices=1)
    events = fill(inbox, 1)
    assert await inbox.get(1) == events
    assert await inbox.get(0) == []
    assert fill(inbox, 1) == await inbox.get(1)


async def test_of_the_tokens_that_do_not_fit_the_newest_of_each_choice_are_kept() -> None:
    inbox = Inbox(num_choices=2)
    events = fill(inbox, 2)
    for index in range(1000, 2000):
        inbox.put(tokens(index, choice=index % 2))
    assert await inbox.get(1) == [*events, tokens(1998, choice=0), tokens(1999, choice=1)]
    inbox.put(tokens(2000))
    assert await inbox.get(1) == [tokens(2000)]


@pytest.mark.parametrize("event", [ADMITTED, RETRY, END])
async def test_events_other_than_tokens_always_fit_and_keep_their_order(event: Event) -> None:
    inbox = Inbox(num_choices=1)
    events = fill(inbox, 1)
    for index in (1000, 1001):
        inbox.put(tokens(index))
    inbox.put(event)
    for index in (1002, 1003):
        inbox.put(tokens(index))
    assert await inbox.get(1) == [*events, tokens(1001), event, tokens(1003)]
