"""Checks tokens that vLLM returns.

If a request's masks forbid every token, vLLM still returns one, an arbitrary one.
"""

from shared.errors import JobError
from worker.engine.grammar import TOO_COMPLEX
from worker.engine.logits import forbidden_tokens
from worker.engine.request import Request
from worker.engine.rules import NO_TOKEN_LEFT, is_restricted


def reason_not_allowed(request: Request, token: int) -> JobError | None:
    """Advance the request's grammar by `token`. Return the error if `token` isn't allowed."""
    allowed = request.sampling.allowed_token_ids
    if (allowed and token not in allowed) or token in forbidden_tokens(request):
        return NO_TOKEN_LEFT
    if request.grammar and not request.grammar.advance(token):
        return NO_TOKEN_LEFT if is_restricted(request) else TOO_COMPLEX
    return None
