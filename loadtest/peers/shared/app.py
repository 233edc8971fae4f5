"""The HTTP side of the peers that compute in FastAPI's threadpool."""

from collections.abc import Callable

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

SIZES = (224, 518)


def serve(embed: Callable[[bytes, int], list[float]], port: int) -> None:
    """Serves `embed`, which gets a file and the size of the model's input."""
    app = FastAPI()

    @app.post("/embed")
    async def post_embed(request: Request, size: int = 224) -> JSONResponse:
        embedding = await run_in_threadpool(embed, await request.body(), size)
        return JSONResponse({"embedding": embedding})

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ready"})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
