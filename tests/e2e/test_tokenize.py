"""Tokenization by a running server equals that of the model's own tokenizer."""

import httpx
import openai
from served_tiny import BASE, QUESTION, TinyModels

TEXT = "héllo <|end|> wörld 🦜"


async def test_texts_and_tokens_are_converted_in_both_directions(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    body = {"model": "narrow", "prompt": TEXT, "return_token_strs": True}
    answer = (await http.post("/tokenize", json=body)).json()
    ids = models.text_ids(TEXT)
    assert answer["tokens"] == ids
    assert answer["count"] == len(ids)
    assert answer["token_strs"] == models.tokenizer.convert_ids_to_tokens(ids)
    text = (await http.post("/detokenize", json={"model": BASE, "tokens": ids})).json()
    assert text == {"prompt": TEXT, "content": TEXT}


async def test_a_chat_has_the_tokens_that_its_completion_counts(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    answer = (await http.post("/tokenize", json={"messages": messages})).json()
    assert answer["tokens"] == models.chat_ids(QUESTION)
    assert answer["token_strs"] is None
    chat = await client.chat.completions.create(
        model=BASE,
        messages=messages,  # type: ignore[arg-type]
        max_tokens=1,
    )
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == answer["count"]
    body = {"messages": messages, "add_generation_prompt": False}
    shorter = (await http.post("/tokenize", json=body)).json()
    assert answer["tokens"][: shorter["count"]] == shorter["tokens"]
    assert shorter["count"] < answer["count"]
