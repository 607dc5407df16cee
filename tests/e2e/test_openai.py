"""The official OpenAI client against real models behind the real gateway."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from .conftest import EMBEDDER, GRAPH, LANGUAGE

QUESTION: ChatCompletionUserMessageParam = {"role": "user", "content": "Say hello."}


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    for name in (EMBEDDER, LANGUAGE, GRAPH):
        assert {name, f"{name}:production", f"{name}:v1.0.0"} <= names


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model=LANGUAGE, messages=[QUESTION], max_tokens=8)
    parsed = answer.parse()
    assert parsed.choices[0].message.content
    assert parsed.usage and 0 < parsed.usage.completion_tokens <= 8
    assert answer.headers["x-modelyard-model"].startswith(f"{LANGUAGE}:v1.0.0@sha256:")


def test_a_streamed_chat_says_the_same(client: openai.OpenAI) -> None:
    options = {"model": LANGUAGE, "max_tokens": 12, "temperature": 0, "seed": 1}
    whole = client.chat.completions.create(messages=[QUESTION], **options)  # type: ignore[call-overload]
    with client.chat.completions.create(messages=[QUESTION], stream=True, **options) as stream:  # type: ignore[call-overload]
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=LANGUAGE, prompt="Once upon", max_tokens=6, temperature=0)
    stream = client.completions.create(model=LANGUAGE, prompt="Once upon", max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text != ""


def test_embeddings_are_the_same_as_numbers_and_as_base64(client: openai.OpenAI) -> None:
    texts = ["A river.", "The stream", "Taxes"]
    numbers = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    packed = client.embeddings.create(model=EMBEDDER, input=texts)  # the client asks for base64 and unpacks it
    vectors = np.array([each.embedding for each in numbers.data], dtype=np.float32)
    np.testing.assert_allclose([each.embedding for each in packed.data], vectors, atol=1e-6)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    raw = httpx.post(
        f"{client.base_url}embeddings", json={"model": EMBEDDER, "input": texts[0], "encoding_format": "base64"}
    ).json()
    decoded = np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, vectors[0], atol=1e-6)


def test_embeddings_of_a_task_come_from_its_model(client: openai.OpenAI) -> None:
    answer = client.embeddings.with_raw_response.create(model="task:semantic-search", input="A river.")
    expected = client.embeddings.create(model=EMBEDDER, input="A river.").data[0].embedding
    np.testing.assert_allclose(answer.parse().data[0].embedding, expected, atol=1e-6)
    assert answer.headers["x-modelyard-model"].startswith(f"{EMBEDDER}:v1.0.0@sha256:")


def test_a_model_is_described_by_its_name(client: openai.OpenAI) -> None:
    for name in (EMBEDDER, f"{EMBEDDER}:v1.0.0"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="/v1/models/nobody' is not served here; served: "):
        client.models.retrieve("nobody")


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'nobody' is not served here; served: "):
        client.embeddings.create(model="nobody", input="x")
    with pytest.raises(openai.BadRequestError, match="empty string"):
        client.embeddings.create(model=EMBEDDER, input="")
    with pytest.raises(openai.BadRequestError, match=f"{GRAPH} does not embed text"):
        client.embeddings.create(model=GRAPH, input="x")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=LANGUAGE, messages="hello")  # type: ignore[arg-type]


def test_what_llamacpp_takes_for_its_own_failure_is_the_clients_mistake(client: openai.OpenAI) -> None:
    """It answers 501 to what its model does not do, and 500 to what it can't read; what it says is kept."""
    with pytest.raises(openai.BadRequestError, match="does not support embeddings") as unable:
        client.embeddings.create(model=LANGUAGE, input="x")
    chat = client.chat.completions
    role: Any = {"role": 1, "content": "x"}
    tools: Any = [{"type": "function"}]
    with pytest.raises(openai.BadRequestError, match="Failed to parse messages: ") as unread:
        chat.create(model=LANGUAGE, messages=[role])
    with pytest.raises(openai.BadRequestError, match="Failed to parse tools: Missing tool function: "):
        chat.create(model=LANGUAGE, messages=[QUESTION], tools=tools)
    for kind, part in (("image", "image_url"), ("audio", "input_audio"), ("video", "video_url")):
        message: Any = {"role": "user", "content": [{"type": part, part: {"url": "x"}}]}
        with pytest.raises(openai.BadRequestError, match=f"{kind} input is not supported"):
            chat.create(model=LANGUAGE, messages=[message])
    with pytest.raises(openai.BadRequestError, match="Unknown reasoning format: x"):
        chat.create(model=LANGUAGE, messages=[QUESTION], stream=True, extra_body={"reasoning_format": "x"})
    with pytest.raises(openai.BadRequestError, match="'messages' is required"):
        client.post("/messages", body={"model": LANGUAGE}, cast_to=object)  # Anthropic's API
    for refused, code in ((unable, "not_supported"), (unread, "invalid_request")):
        assert (refused.value.type, refused.value.code) == ("invalid_request_error", code)
        assert refused.value.response.headers["x-modelyard-model"].startswith(f"{LANGUAGE}:v1.0.0@sha256:")


def test_streams_that_are_left_leave_the_engine_free(client: openai.OpenAI) -> None:
    """It takes four requests at a time; twelve that are left after their first word stop none that follows."""
    for _ in range(12):
        with client.chat.completions.create(
            model=LANGUAGE, messages=[QUESTION], max_tokens=2000, stream=True, temperature=1
        ) as stream:
            next(iter(stream))
    answer = client.with_options(timeout=30).chat.completions.create(model=LANGUAGE, messages=[QUESTION], max_tokens=4)
    assert answer.choices[0].message.content
