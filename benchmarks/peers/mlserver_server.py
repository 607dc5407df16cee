"""sentence-transformers in MLServer, with its adaptive batching on: `python mlserver_server.py FOLDER PORT`.

Answers `POST /v2/models/embeddings/infer` with a tensor of texts.
"""

from __future__ import annotations

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from sentence_transformers import SentenceTransformer

FOLDER, PORT = sys.argv[1:]


class Embeddings(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.model = SentenceTransformer(FOLDER, device="cpu")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        vectors = self.model.encode(texts, show_progress_bar=False)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("embeddings", vectors)])


async def serve() -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=int(PORT),
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        debug=False,
    )
    model = ModelSettings(name="embeddings", implementation=Embeddings, max_batch_size=32, max_batch_time=0.005)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(serve())
