"""What was said so far, and with whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.chat.client import Client, Message, ServerError
from shared.errors import LorikeetError


class CommandError(LorikeetError):
    """What was typed can't be followed."""


@dataclass(slots=True)
class Talk:
    """The conversation with one model."""

    model: str
    history: list[Message] = field(default_factory=list)
    answer: str = ""
    """The latest one, as far as it has come."""
    error: str = ""
    """Why there is no latest answer."""

    async def ask(self, client: Client, prompt: str, show: Callable[[str], None]) -> None:
        """Get the answer to `prompt`, calling `show` with each piece; errors go to `error`.

        An answer that is stopped by cancelling the call counts as far as it had come. A prompt
        without any answer is forgotten.
        """
        self.answer = self.error = ""
        self.history.append({"role": "user", "content": prompt})
        try:
            async for piece in client.answer(self.model, self.history):
                self.answer += piece
                show(piece)
        except ServerError as error:
            self.error = str(error)
        finally:
            if self.answer and not self.error:
                self.history.append({"role": "assistant", "content": self.answer})
            else:
                self.history.pop()


class Conversation:
    """With one model, or with several side by side that are asked the same."""

    def __init__(self, names: Sequence[str], models: Sequence[str]) -> None:
        self.names = names
        self.talks: list[Talk] = []
        self.turn_to(models)

    def turn_to(self, models: Sequence[str]) -> None:
        """Go on with these models. One that took part keeps its answers; others get the first's.

        Raises:
            CommandError: the server has no such model.
        """
        for model in models:
            if model not in self.names:
                raise CommandError(f"there is no model {model}, only {', '.join(self.names)}")
        known = {talk.model: talk.history for talk in self.talks}
        first = self.talks[0].history if self.talks else []
        self.talks = [Talk(model, [*known.get(model, first)]) for model in models]

    def reset(self) -> None:
        """Forget all that was said."""
        for talk in self.talks:
            talk.history.clear()
