"""The model server: all formats that have a runtime, as Open Inference Protocol v2 and /v1/embeddings.

`server.run` is the process and `app` its HTTP face; `batcher` and `compute` join requests; `runtimes` make models
computable; `protocol` and `openai` know the documents. It needs the `serve` extra.
"""
