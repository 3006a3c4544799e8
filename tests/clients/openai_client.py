"""OpenAI's own Python client against `bd3 serve`: one line for each check; exit code 1 where one fails.

    python openai_client.py plain=URL [locked=URL key=KEY] [narrow=URL] [chat=URL]

plain: the model inside the binary; locked: with --api-key KEY; narrow: with --lanes 1 --queue 1; chat: SmolLM2. The first and the third
with --max-tokens 1000000.
"""

import json
import sys
import time
import traceback
import urllib.request
from typing import Literal

import openai
from pydantic import BaseModel
from state import State

SERVERS = dict(argument.split("=", 1) for argument in sys.argv[1:])
PROMPT = "Once upon a time"
ENDLESS = 1_000_000


def client(server, key="none"):
    return openai.OpenAI(base_url=SERVERS[server] + "/v1", api_key=key, max_retries=0, timeout=120)


def get(server, path):
    with urllib.request.urlopen(SERVERS[server] + path, timeout=30) as answer:
        return answer.read().decode()


def gauge(server, name):
    lines = get(server, "/metrics").splitlines()
    return int(next(line for line in lines if line.startswith(name + " ")).split()[1])


def endless(server):
    """Fields of a request that ends late."""
    model = json.loads(get(server, "/bd3/model"))
    return {"max_tokens": ENDLESS, "logit_bias": {str(model["eos"]): -100}}


def complete(api, **fields):
    return api.completions.create(**{"model": "tiny", "prompt": PROMPT, "max_tokens": 24, "seed": 1, **fields})


def text_of(stream):
    return "".join(choice.text for chunk in stream for choice in chunk.choices)


def raised(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, error
        return error
    raise AssertionError(f"no {kind.__name__}")


def models():
    api = client("plain")
    assert [model.id for model in api.models.list()] == ["tiny"]
    assert api.models.retrieve("tiny").owned_by == "bd3"


def completion():
    answer = complete(client("plain"))
    choice = answer.choices[0]
    assert answer.object == "text_completion" and choice.text and choice.finish_reason == "length", answer
    assert answer.usage.completion_tokens == 24, answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24, answer.usage


def stream():
    api = client("plain")
    chunks = list(complete(api, stream=True))
    assert len(chunks) > 3 and text_of(chunks) == complete(api).choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length" and chunks[-1].usage is None


def usage_in_a_stream():
    chunks = list(complete(client("plain"), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 24, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])


def prompts():
    api = client("plain")
    answer = complete(api, prompt=[PROMPT, "The dog"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    ids = [5, 7, 9]
    assert complete(api, prompt=ids).choices[0].text == complete(api, prompt=[ids]).choices[0].text
    assert complete(api, echo=True).choices[0].text.startswith(PROMPT)
    assert complete(api, suffix=" The end.").choices[0].text


def stop():
    api = client("plain")
    whole = complete(api, temperature=0).choices[0].text
    word = whole.split()[8]
    cut = complete(api, temperature=0, stop=[word, "\x00"]).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(word)], "stop"), cut
    assert text_of(complete(api, temperature=0, stop=word, stream=True)) == cut.text


def n_and_seed():
    api = client("plain")
    texts = lambda **fields: [choice.text for choice in complete(api, n=3, **fields).choices]
    first = texts(seed=7)
    assert len(set(first)) == 3 and first == texts(seed=7) and first != texts(seed=8)
    parts = {}
    for chunk in complete(api, n=3, seed=7, stream=True):
        for choice in chunk.choices:
            parts[choice.index] = parts.get(choice.index, "") + choice.text
    assert [parts[index] for index in range(3)] == first


def logprobs():
    choice = complete(client("plain"), logprobs=2).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text and len(told.tokens) == 24
    assert all(value <= 0 for value in told.token_logprobs)
    # The drawn token stands beside the two most probable ones where it is none of them.
    assert all(0 < len(top) <= 3 and token in top for token, top in zip(told.tokens, told.top_logprobs))
    for token, offset in zip(told.tokens, told.text_offset):
        assert choice.text[offset:].startswith(token)


def cancel():
    api = client("plain")
    before = gauge("plain", "bd3_tokens_total")
    stream = complete(api, stream=True, **endless("plain"))
    for _ in range(3):
        next(stream)
    assert gauge("plain", "bd3_lanes") == 1
    stream.close()
    end = time.monotonic() + 10
    while gauge("plain", "bd3_lanes") > 0:
        assert time.monotonic() < end, "the lane is still there"
        time.sleep(0.02)
    written = gauge("plain", "bd3_tokens_total") - before
    assert written < ENDLESS, f"{written} tokens were written"


def chat_without_a_template():
    messages = [{"role": "user", "content": "Hello"}]
    ask = lambda: client("plain").chat.completions.create(model="tiny", messages=messages)
    error = raised(openai.BadRequestError, ask)
    assert (error.code, error.param) == ("no_chat_template", "model"), error


def errors_name_their_field():
    api = client("plain")
    for field, value in [("temperature", -1), ("top_p", 2), ("n", 0), ("max_tokens", -1), ("presence_penalty", 1)]:
        error = raised(openai.BadRequestError, lambda: complete(api, **{field: value}))
        assert error.param == field and field in error.message, error
    for name, value in [("blok", 4), ("threshold", 2), ("rule", "no-such")]:
        body = {"bd3": {"rule": "threshold", name: value}}
        error = raised(openai.BadRequestError, lambda: complete(api, extra_body=body))
        assert error.param in ("bd3", f"bd3.{name}") and name in error.message, error


def errors_have_their_types():
    api = client("plain")
    error = raised(openai.NotFoundError, lambda: complete(api, model="gpt-4"))
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error"), error
    raised(openai.NotFoundError, lambda: api.models.retrieve("gpt-4"))
    raised(openai.NotFoundError, lambda: api.embeddings.create(model="tiny", input="x"))
    raised(openai.PermissionDeniedError, lambda: complete(api, extra_headers={"Host": "elsewhere.example"}))


def a_key():
    error = raised(openai.AuthenticationError, lambda: complete(client("locked", "wrong")))
    assert (error.code, error.type) == ("invalid_api_key", "authentication_error"), error
    assert complete(client("locked", SERVERS["key"])).choices[0].text


def a_full_queue():
    api = client("narrow")
    under_way = complete(api, stream=True, **endless("narrow"))
    next(under_way)
    waiting = complete(api, stream=True, **endless("narrow"))
    error = raised(openai.RateLimitError, lambda: complete(api))
    assert (error.code, error.type) == ("queue_full", "rate_limit_error"), error
    assert int(error.response.headers["retry-after"]) >= 1
    under_way.close()
    waiting.close()
    # With retries on the client waits as it is told.
    assert complete(api.with_options(max_retries=5)).choices[0].text


def replay(chunks):
    """The state after all lines, and the text that the chunks told."""
    state, text, end = State(), "", None
    for chunk in chunks:
        for line in chunk.bd3.get("trace", []):
            state.apply(line)
        text += chunk.choices[0].text
        end = chunk.bd3 if chunk.choices[0].finish_reason else end
    assert state.events[-1]["event"] == "finished" and end["seed"] == state.header["seed"]
    return state, text


def events():
    api = client("plain")
    for bd3 in [
        {},
        {"block": 32, "rule": "threshold", "threshold": 0.5, "alternatives": 3},
        {"block": 8, "revise": "remask", "revise_threshold": 0.4},
        {"rule": "ancestral", "steps": 4, "revise": "remdm-cap"},
    ]:
        body = {"bd3": {"events": True, **bd3}}
        state, text = replay(complete(api, max_tokens=60, stream=True, extra_body=body))
        plain = complete(api, max_tokens=60, extra_body={"bd3": bd3}).choices[0].text
        assert state.text(len(state.given)) == text == plain, (bd3, text, plain)
        edits = [edit for line in state.events for edit in line.get("edits", [])]
        assert all(len(edit.get("alternatives", [])) == bd3.get("alternatives", 0) for edit in edits)
        if "revise" in bd3:
            assert any(edit["kind"] == "remask" for edit in edits), "nothing was masked again"


def events_of_retracted_text():
    api = client("plain")
    bd3 = {"block": 4, "revise": "look-back", "revise_threshold": 0.2, "revise_rounds": 8}
    body = {"bd3": {"events": True, **bd3}}
    state, text = replay(complete(api, max_tokens=100, temperature=1.3, stream=True, extra_body=body))
    assert any(line["event"] == "retracted" for line in state.events), "nothing was taken back"
    assert state.text(len(state.given)) == text


def events_of_a_gap():
    api = client("plain")
    body = {"bd3": {"events": True, "infill": "Once ___{2,4} there was a ___ who lived in ___."}}
    fields = {"model": "tiny", "prompt": None, "max_tokens": 0, "seed": 3}
    state, text = replay(api.completions.create(**fields, stream=True, extra_body=body))
    assert state.header["mask"] in state.given and state.text(1) == text and text.startswith("Once ")


def events_of_a_whole_answer():
    choice = complete(client("plain"), extra_body={"bd3": {"events": True}}).choices[0]
    state = State()
    for line in choice.bd3["trace"]:
        state.apply(line)
    assert state.text(len(state.given)) == choice.text


def structured():
    """A class of pydantic's, as the client sends it and reads it back."""
    class Friend(BaseModel):
        name: str

    class Cat(BaseModel):
        name: str
        age: int | None
        kind: Literal["cat", "dog"] = "cat"
        friends: list[Friend]

    api = client("chat")
    model = api.models.list().data[0].id
    messages = [{"role": "user", "content": "Describe a cat named Tom who is five years old and has two friends, as JSON."}]
    answer = api.chat.completions.parse(model=model, messages=messages, response_format=Cat, temperature=0, max_tokens=100)
    cat = answer.choices[0].message.parsed
    assert isinstance(cat, Cat) and cat.kind in ("cat", "dog"), answer


def json_of_a_completion():
    how = {"response_format": {"type": "json_object"}, "bd3": {"block": 8}}
    text = complete(client("plain"), max_tokens=40, seed=3, extra_body=how).choices[0].text
    assert isinstance(json.loads(text), dict), text


def chat():
    api = client("chat")
    model = api.models.list().data[0].id
    question = "What is the capital of France? Answer in one word."
    fields = {"model": model, "temperature": 0, "max_completion_tokens": 24}
    ask = lambda **more: api.chat.completions.create(messages=[{"role": "user", "content": question}], **fields, **more)
    whole = ask().choices[0]
    assert whole.message.role == "assistant" and "Paris" in whole.message.content, whole
    assert whole.finish_reason == "stop", whole
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant" and chunks[-1].usage.completion_tokens > 0
    assert "".join(delta.content or "" for delta in deltas) == whole.message.content
    told = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in told), told


CHECKS = {
    "plain": [
        models, completion, stream, usage_in_a_stream, prompts, stop, n_and_seed, logprobs, json_of_a_completion, cancel, chat_without_a_template,
        errors_name_their_field, errors_have_their_types, events, events_of_retracted_text, events_of_a_gap,
        events_of_a_whole_answer,
    ],
    "locked": [a_key],
    "narrow": [a_full_queue],
    "chat": [chat, structured],
}  # fmt: skip


def main():
    failed = 0
    for server, checks in CHECKS.items():
        for check in checks if server in SERVERS else []:
            try:
                check()
                print("ok", check.__name__)
            except Exception:
                failed += 1
                print("FAILED", check.__name__, traceback.format_exc(limit=-3), sep="\n")
    return failed > 0


sys.exit(main())
