"""Jobs: requests in the form that Redis stores. `codec.py` has the rules for new fields."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.capabilities import Feature
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.sampling import TokenSampling
from shared.protocol.scoring import ScoringParams
from shared.protocol.tools import ToolUse
from shared.reasoning_form import ReasoningForm

Prompt = str | tuple[int, ...]
"""Prompt as text or as token ids."""

MAX_LEFT_MS = 10**12
"""Value of `ClaimedJob.left_ms` for a job without a deadline, in milliseconds (about 30 years)."""

MAX_EMBEDDED = 8
"""Maximum number of sequences that a job for embeddings or scores takes up on a worker. Such a job
may have thousands of prompts, but prompts of other jobs are computed first."""


class Endpoint(StrEnum):
    """OpenAI endpoint that received a request."""

    CHAT = "chat"
    """`/v1/chat/completions`. The job has `messages`."""
    COMPLETIONS = "completions"
    """`/v1/completions`. The job has `prompts`."""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`. The job has `prompts` and `embedding`."""
    SCORES = "scores"
    """`/v1/score` or `/v1/rerank`. The job has `prompts` and `scoring`."""


class View(StrEnum):
    """API that defines the format of a job's answer. Workers ignore it."""

    OPENAI = ""
    """The API of the job's endpoint."""
    RESPONSES = "responses"
    """`/v1/responses`. The job's endpoint is CHAT."""
    MESSAGES = "messages"
    """`/v1/messages`, Anthropic's API. The job's endpoint is CHAT."""
    GENERATE = "generate"
    """`/generate`, SGLang's API. The job's endpoint is COMPLETIONS."""
    OLLAMA = "ollama"
    """`/api/chat` and the other routes of Ollama's API. The job may have any endpoint."""


class PromptEnd(StrEnum):
    """How the prompt of a chat ends."""

    ANSWER = "answer"
    """The prompt ends with the header of a new answer. This is the usual case."""
    MESSAGE = "message"
    """The prompt ends with the last message, which is unfinished. The answer continues it."""
    NOTHING = "nothing"
    """The prompt ends with the last message, which is complete. No header follows it."""


class JobState(StrEnum):
    """State of a job. All states after RUNNING are final."""

    QUEUED = "queued"
    """Waiting in the queue of its adapter version."""
    RUNNING = "running"
    """Claimed by exactly one worker."""
    DONE = "done"
    """Answered completely."""
    FAILED = "failed"
    """Ended with an error. The error is stored with the job."""
    CANCELLED = "cancelled"
    """Cancelled by its client."""
    EXPIRED = "expired"
    """The deadline passed before the answer was complete."""
    DEAD = "dead"
    """Repeatedly killed its worker while running alone. Kept as a dead letter."""


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
"""States of jobs that haven't ended. All other states are final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams(TokenSampling):
    """How the answers of a job are sampled, ended, constrained and reported."""

    max_tokens: int | None = None
    """Maximum number of output tokens of each choice; None allows output to the context's end."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end an answer, in addition to the end-of-sequence tokens."""
    includes_stop: bool = False
    """Whether an answer's text includes the stop string or stop token that ends it."""
    bad_words: tuple[str, ...] = ()
    """Texts that an answer never contains, as sequences of tokens."""
    keeps_special_tokens: bool = False
    """Whether the text of an answer shows special tokens by their names."""
    reports_ids: bool = False
    """Whether the prompt's tokens are published with the first tokens of each choice."""
    tokens_as_ids: bool = False
    """Whether logprobs name tokens by their ids, as `token_id:5`, instead of their texts."""
    truncate_prompt_tokens: int | None = None
    """Number of tokens to keep of each prompt, from its end; None keeps all."""
    n: int = 1
    ignore_eos: bool = False
    cache_salt: str = ""
    """Requests share cached keys and values of prompts only if their salts are equal."""
    left_out: tuple[str, ...] = ()
    """Names of parameters that the client didn't send. If the job's adapter has defaults for them,
    the defaults apply."""
    json_schema: str | None = None
    """JSON schema, as JSON text, that each answer must match; None allows any text."""
    regex: str | None = None
    """Regular expression that each answer must match as a whole; None allows any text."""
    choice: tuple[str, ...] = ()
    """Each answer must be one of these texts; empty allows any text."""
    grammar: str | None = None
    """Lark or GBNF grammar that each answer must match; None allows any text."""
    constrained_by: str = ""
    """Name of the request field from which `json_schema`, `regex`, `choice` or `grammar` comes. At
    most one of these four is set. The name is empty for `response_format`."""

    @property
    def is_constrained(self) -> bool:
        """Whether answers must match a schema, regular expression, choice or grammar."""
        texts = (self.json_schema, self.regex, self.grammar)
        return bool(self.choice) or any(text is not None for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """Fields of a job that its answer repeats, or that determine the form of the answer."""

    id: JobId
    endpoint: Endpoint
    model: str
    """Model name that the client sent. The answer repeats it."""
    version: AdapterVersion
    """Version that serves the job. The front end chose it when it accepted the request. The answer
    reports it as `weight_version`."""
    created_s: int
    """Unix time in seconds at which the front end received the request."""
    fingerprint: str = ""
    """`system_fingerprint` of the answer, with digests of the base model and the adapter."""
    encodes_base64: bool = False
    """Embeddings only: whether the answer encodes embeddings as base64 instead of numbers."""
    include_usage: bool = False
    """Whether a stream of the answer ends with the token counts."""
    returns_token_ids: bool = False
    """Whether the answer has the token ids of prompts and choices."""
    continuous_usage: bool = False
    """Whether each chunk of a stream has the token counts so far."""
    service_tier: str | None = None
    """`service_tier` of the request. It determines `priority`, and the answer repeats it."""
    view: View = View.OPENAI
    """API of the request. It defines the format of the answer."""
    request: dict[str, Any] | None = None
    """Parts of the request that the answer repeats, or that a later request continues. Only the API
    of `view` defines their form. They can be as large as a request, so Redis stores them in a field
    of their own. None in lists of jobs."""
    reasoning: ReasoningForm | None = None
    """Chat only: form of the reasoning that precedes answers; None if all text is content."""
    hides_reasoning: bool = False
    """Whether the reasoning is left out of the answers."""
    echoed: str = ""
    """Chat only: text of the last message if the content of each answer begins with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(AnswerFormat):
    """One request in the form that Redis stores."""

    sampling: SamplingParams
    deadline_ms: int
    """Milliseconds from enqueueing to the deadline."""
    cost: int
    """Estimated number of tokens in prompts and answers. Fair queueing charges it to the tenant,
    and a claim reserves it on the worker."""
    reply_to: ApiId
    tenant: str = "default"
    priority: int = 0
    """Jobs with a higher priority run earlier. One unit of priority is worth 1,000 tokens in fair
    queueing (`PRIORITY_STEP`)."""
    is_preemptible: bool = False
    """Whether the job uses idle capacity only. It waits behind all jobs that aren't preemptible,
    and returns to the queue when one of them needs its place on the worker. Fair queueing treats
    preemptible jobs separately."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat only: the messages in the form that chat templates expect. Text parts are joined, unless
    the message has images, and tool arguments are objects."""
    images: tuple[str, ...] = ()
    """Chat only: files of the images, in base64, in the order of their places in the messages."""
    prompts: tuple[Prompt, ...] = ()
    """Completions, embeddings and scores: the prompts of the request."""
    embedding: EmbeddingParams | None = None
    """Embeddings only: how to compute the embedding of each prompt."""
    scoring: ScoringParams | None = None
    """Scores only: how to score each prompt."""
    echo: bool = False
    """Completions only: whether each choice's text begins with the prompt."""
    tools: ToolUse | None = None
    """Chat only: tools that the model may call."""
    template_kwargs: dict[str, Any] | None = None
    """Chat only: further variables of the chat template."""
    prompt_end: PromptEnd = PromptEnd.ANSWER
    """Chat only: how the prompt ends."""
    rid: str = ""
    """Name that the client gave the request, and by which it can cancel the job. Empty if none."""
    traceparent: str | None = None
    """W3C header that continues the trace of the request; None if the request isn't traced."""

    @property
    def reports_end(self) -> bool:
        """Whether logprobs include the token that ends an answer without being part of its text.

        Clients that score an echoed prompt have to ask for an output token, and ignore the last
        logprob. If the output token had no logprob, they would ignore a logprob of the prompt
        instead.
        """
        sampling = self.sampling
        return self.echo or sampling.reports_ids or bool(sampling.logprob_token_ids)

    @property
    def num_choices(self) -> int:
        """Number of choices over all prompts.

        With n = `sampling.n`, prompt i has the choices `i * n` to `i * n + n - 1`.
        """
        return self.sampling.n * max(1, len(self.prompts))

    @property
    def features(self) -> frozenset[Feature]:
        """Features that the request needs, in addition to the needs of the job's version."""
        asked = {
            Feature.EMBEDDINGS: self.embedding is not None,
            Feature.IMAGES: bool(self.images),
            Feature.LISTED_LOGPROBS: bool(self.sampling.logprob_token_ids),
        }
        return frozenset(feature for feature, is_asked in asked.items() if is_asked)

    @property
    def num_sequences(self) -> int:
        """Number of sequences that the job takes up on a worker."""
        generates = self.embedding is None and self.scoring is None
        return self.num_choices if generates else min(self.num_choices, MAX_EMBEDDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that a worker owns until it finishes or releases it."""

    job: Job
    try_: int
    """Number of claims of the job so far, including this one. Calls for earlier tries fail."""
    suspect: bool
    """Whether the job must run alone, because workers died while they ran it."""
    claim_epoch: int = 0
    """Random id of the claim, which is unique even if a failover of Redis loses writes. 0 matches
    any claim."""
    left_ms: int = MAX_LEFT_MS
    """Milliseconds from the claim to the job's deadline."""
    waited_ms: int = 0
    """Milliseconds for which the job has waited since it was enqueued or last requeued."""
    token_limit: int | None = None
    """Smallest of the API key's token limits; None if the key has none. If there is a limit, the
    worker reports the job's tokens while the job runs."""
