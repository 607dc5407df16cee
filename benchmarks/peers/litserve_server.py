"""sentence-transformers behind LitServe, with its batching on: `python litserve_server.py FOLDER PORT`.

Answers `POST /embed` with `{"texts": [...]}`.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
from sentence_transformers import SentenceTransformer

FOLDER, PORT = sys.argv[1:]


class Embeddings(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = SentenceTransformer(FOLDER, device="cpu")

    # LitServe reads the annotation, and knows no others here.
    def decode_request(self, request) -> list[str]:  # type: ignore[no-untyped-def]
        texts: list[str] = request["texts"]
        return texts

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        return inputs

    def predict(self, inputs: list[list[str]]) -> list[Any]:
        vectors = self.model.encode([text for texts in inputs for text in texts], show_progress_bar=False)
        parts, start = [], 0
        for texts in inputs:
            parts.append(vectors[start : start + len(texts)])
            start += len(texts)
        return parts

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"embeddings": output.tolist()}


if __name__ == "__main__":
    api = Embeddings(max_batch_size=32, batch_timeout=0.005, api_path="/embed")
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(PORT), log_level="error", generate_client_file=False)
