"""Uses a server through the Python packages that speak OpenAI's API, with their own defaults.

`python openai_clients.py URL IMAGE` checks what each client returns, and prints the embedding of the image by each of
them as JSON.
"""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

# litellm would ask the internet for prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
from langchain_openai import OpenAIEmbeddings

URL, IMAGE = sys.argv[1], Path(sys.argv[2])
MODEL = "dinov2-small-focus"
FILE = base64.b64encode(IMAGE.read_bytes()).decode()
URI = f"data:image/png;base64,{FILE}"
KEY = {"api_key": "none", "max_retries": 0}


def check(condition, what):
    if not condition:
        sys.exit(f"openai_clients.py: {what}")


def fails(error, text, call):
    """Checks that a call raises this error with this text in it."""
    try:
        call()
    except error as raised:
        check(text in str(raised), raised)
    else:
        sys.exit(f"openai_clients.py: no {error.__name__}: {text}")


def with_openai(vectors):
    client = openai.OpenAI(base_url=URL, **KEY)
    # The package requests base64 by default, and returns numbers either way.
    one = client.embeddings.create(model=MODEL, input=URI)
    two = client.embeddings.create(model=MODEL, input=[URI, FILE], encoding_format="float", dimensions=384, user="me")
    check([entry.index for entry in two.data] == [0, 1], two)
    check(one.usage.total_tokens == 257 and two.usage.prompt_tokens == 514, (one.usage, two.usage))
    vectors["openai, base64"] = one.data[0].embedding
    vectors["openai, float"] = two.data[1].embedding
    part = {"type": "image_url", "image_url": {"url": URI}}
    shaped = client.embeddings.create(model=MODEL, input=[part])
    vectors["openai, content part"] = shaped.data[0].embedding
    bare = client.embeddings.with_raw_response.create(model=MODEL, input=URI, extra_body={"user": None})
    vectors["openai, raw response"] = bare.parse().data[0].embedding

    models = client.models.list()
    check([model.id for model in models] == [MODEL], models)
    model = client.models.retrieve(MODEL)
    check((model.id, model.object, model.owned_by) == (MODEL, "model", "dinoserve"), model)
    check(model.created > 1_700_000_000, model)
    fails(openai.NotFoundError, "this server runs", lambda: client.models.retrieve("facebook/dinov2-small"))
    fails(
        openai.NotFoundError,
        "this server runs",
        lambda: client.embeddings.create(model="text-embedding-3-small", input=URI),
    )
    fails(
        openai.BadRequestError,
        "this model embeds images, not text; send a data: URI",
        lambda: client.embeddings.create(model=MODEL, input="hello world"),
    )
    fails(
        openai.UnprocessableEntityError,
        "they have 384 dimensions",
        lambda: client.embeddings.create(model=MODEL, input=URI, dimensions=128),
    )


async def with_async_openai(vectors):
    async with openai.AsyncOpenAI(base_url=URL, **KEY) as client:
        answers = await asyncio.gather(*(client.embeddings.create(model=MODEL, input=[URI]) for _ in range(4)))
        vectors["openai, async"] = answers[3].data[0].embedding
        models = [model.id async for model in client.models.list()]
        check(models == [MODEL], models)
        model = await client.models.retrieve(MODEL)
        check(model.id == MODEL, model)


def with_litellm(vectors):
    def embed(provider, **more):
        address = URL + "/embeddings" if provider == "jina_ai" else URL
        arguments = {"model": f"{provider}/{MODEL}", "input": [URI], "api_base": address, "api_key": "none"}
        return litellm.embedding(**arguments, **more).data[0]["embedding"]

    for provider in ("openai", "hosted_vllm", "litellm_proxy", "jina_ai"):
        vectors[f"litellm, {provider}"] = embed(provider)
    vectors["litellm, float"] = embed("openai", encoding_format="float", user="me")

    async def later():
        arguments = {"model": f"openai/{MODEL}", "input": [URI], "api_base": URL, "api_key": "none"}
        return (await litellm.aembedding(**arguments)).data[0]["embedding"]

    vectors["litellm, async"] = asyncio.run(later())


def with_langchain(vectors):
    # Without this flag LangChain sends the tokens of texts.
    client = OpenAIEmbeddings(model=MODEL, base_url=URL, check_embedding_ctx_length=False, **KEY)
    vectors["langchain-openai"] = client.embed_query(URI)
    documents = client.embed_documents([URI, FILE])
    check(documents[0] == documents[1], "two documents of one image differ")
    check(asyncio.run(client.aembed_documents([URI])) == documents[:1], "the asynchronous call differs")


def main():
    vectors = {}
    with_openai(vectors)
    asyncio.run(with_async_openai(vectors))
    with_litellm(vectors)
    with_langchain(vectors)
    print(json.dumps(vectors))


main()
