"""Fills an MLflow server, with its own client: `python log_estate.py FOLDER`, where FOLDER holds a model's files.

Runs in the environment of `make engines`. The last line it prints is JSON: what tests need to know.
"""

from __future__ import annotations

import json
import sys
import warnings

import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
client = MlflowClient()


def train(name: str, alpha: float, serialization: str) -> tuple[str, float]:
    """A digits classifier, logged and registered; (run, accuracy)."""
    model = SGDClassifier(alpha=alpha, random_state=0, max_iter=20).fit(X[:1000], y[:1000])
    accuracy = float(model.score(X[1000:], y[1000:]))
    with mlflow.start_run(run_name=f"alpha {alpha}") as run:
        mlflow.log_param("alpha", alpha)
        mlflow.log_metric("accuracy", accuracy)
        mlflow.log_metric("loss", float("nan"))
        mlflow.set_tag("team", "vision")
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            serialization_format=serialization,
            pip_requirements=["scikit-learn"],
            signature=mlflow.models.infer_signature(X[:2], model.predict(X[:2])),
        )
    return run.info.run_id, accuracy


def upload(name: str, folder: str) -> str:
    """Artifacts of a run, registered as MLflow 2 does; the run."""
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "encoder")
    client.create_model_version(name, f"{run.info.artifact_uri}/encoder", run.info.run_id)
    return str(run.info.run_id)


mlflow.set_experiment("digits")
runs = [train("digits", alpha, "skops") for alpha in (1e-4, 1e-3, 1e-2)]
client.update_registered_model("digits", "Reads digits")
client.update_model_version("digits", "2", "The steady one")
client.set_model_version_tag("digits", "2", "stage", "qa")
for alias, version in (("champion", "2"), ("Best_One", "3"), ("production", "1")):
    client.set_registered_model_alias("digits", alias, version)
train("digits pickled", 1e-4, "cloudpickle")
client.create_registered_model("encoder")
uploads = [upload("encoder", sys.argv[1]) for _ in range(2)]
client.transition_model_version_stage("encoder", "2", "Production")
client.register_prompt("greeting", "Hello {{name}}")
print(json.dumps({"run": runs[1][0], "accuracy": runs[1][1], "upload": uploads[0]}))
