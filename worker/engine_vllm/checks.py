"""Checks a token that vLLM returns. If a request's masks leave no token, vLLM returns any. Pure."""

from shared.errors import JobError
from worker.engine.grammar import TOO_COMPLEX
from worker.engine.request import Request
from worker.engine.rules import NO_TOKEN_LEFT, is_restricted


def reason_not_allowed(request: Request, token: int) -> JobError | None:
    """Return why the masks or the grammar of a request forbid its next token, or None.

    A token that is allowed advances the grammar.
    """
    sampling, output = request.sampling, request.output_ids
    is_allowed = not sampling.allowed_token_ids or token in sampling.allowed_token_ids
    is_early = len(output) < sampling.min_tokens and token in request.stop_ids
    completes_bad_word = any(
        word[-1] == token and tuple(output[len(output) + 1 - len(word) :]) == word[:-1]
        for word in sampling.bad_words
        if len(word) <= len(output) + 1
    )
    if not is_allowed or is_early or completes_bad_word:
        return NO_TOKEN_LEFT
    if request.grammar and not request.grammar.advance(token):
        return NO_TOKEN_LEFT if is_restricted(request) else TOO_COMPLEX
    return None
