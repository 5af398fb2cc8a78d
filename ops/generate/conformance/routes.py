"""All routes that take a JSON body from clients of other APIs."""

from ops.generate.conformance.chat import CHAT
from ops.generate.conformance.completions import COMPLETIONS
from ops.generate.conformance.count_tokens import COUNT_TOKENS
from ops.generate.conformance.embeddings import EMBEDDINGS
from ops.generate.conformance.input_tokens import INPUT_TOKENS
from ops.generate.conformance.messages import MESSAGE
from ops.generate.conformance.responses import RESPONSES
from ops.generate.conformance.rows import Route
from ops.generate.conformance.tokenize import DETOKENIZE, TOKENIZE

ROUTES: tuple[Route, ...] = (
    *(CHAT, COMPLETIONS, RESPONSES, INPUT_TOKENS, MESSAGE, COUNT_TOKENS),
    *(EMBEDDINGS, TOKENIZE, DETOKENIZE),
)
