"""sentence-transformers behind FastAPI, as its documentation would have it: `python fastapi_server.py FOLDER PORT`.

Answers `POST /embed` with `{"texts": [...]}`.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

FOLDER, PORT = sys.argv[1:]


class Asked(BaseModel):
    texts: list[str]


app, model = FastAPI(), SentenceTransformer(FOLDER, device="cpu")


@app.get("/health")  # type: ignore[untyped-decorator]
def health() -> str:
    return "ok"


@app.post("/embed")  # type: ignore[untyped-decorator]
def embed(asked: Asked) -> dict[str, Any]:
    return {"embeddings": model.encode(asked.texts, show_progress_bar=False).tolist()}


uvicorn.run(app, host="127.0.0.1", port=int(PORT), log_level="error", loop="uvloop", http="httptools")
