"""The Hub's JSON documents about a version. Pure; what the repository does not know is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modelyard.api.huggingface.revisions import MAIN, commit_id
from modelyard.api.huggingface.tree import Folder
from modelyard.repository import ModelVersion
from modelyard.repository.manifest import Artifact, ModelInfo, content_digest

Document = dict[str, Any]

_LIBRARIES = ("sentence-transformers", "transformers")


def summary(name: str) -> Document:
    """A model in a list of models."""
    return {"id": name, "modelId": name, "private": False}


def model(version: ModelVersion, *, blobs: bool) -> Document:
    """A version as its model's description; `blobs`: with size and digest of each file."""
    info = version.model
    labels = _labels(version)
    found = {
        "author": version.name.rpartition("/")[0] or None,
        "pipeline_tag": info.task,
        "library_name": info.format if info.format in _LIBRARIES else None,
        "cardData": _card(info) or None,
        # By dtype they are not known: the manifest keeps their sum.
        "safetensors": {"parameters": {}, "total": info.parameters}
        if info.parameters and "safetensors" in labels
        else None,
    }
    return {
        **summary(version.name),
        "sha": commit_id(version),
        "lastModified": _time(version.created_at),
        "tags": labels,
        **{key: value for key, value in found.items() if value is not None},
        "siblings": [_sibling(file, blobs) for file in version.files],
    }


def refs(tags: Mapping[str, str], commits: Mapping[str, str]) -> Document:
    """What moves (tag → version) as branches, what never does (version → commit) as tags."""
    branches = {MAIN: tags["latest"], **tags} if "latest" in tags else tags
    return {
        "branches": [_ref("heads", tag, commits[at]) for tag, at in branches.items() if at in commits],
        "converts": [],
        "tags": [_ref("tags", version, commit) for version, commit in commits.items()],
        "pullRequests": [],
    }


def entry(found: Artifact | Folder, version: ModelVersion, *, expand: bool) -> Document:
    """A file or folder in a listing; `expand`: with its commit, which is the whole version's."""
    document: Document
    if isinstance(found, Folder):
        oid = content_digest(found.files).hex[:40]
        document = {"type": "directory", "oid": oid, "size": 0, "path": found.path}
    else:
        oid, length = _pointer(found)
        lfs = {"oid": found.sha256, "size": found.size, "pointerSize": length}
        document = {"type": "file", "oid": oid, "size": found.size, "path": found.path, "lfs": lfs}
    if expand:
        commit = {"id": commit_id(version), "title": str(version.version), "date": _time(version.created_at)}
        document["lastCommit"] = commit
    return document


def _sibling(file: Artifact, blobs: bool) -> Document:
    document: Document = {"rfilename": file.path}
    if blobs:
        oid, length = _pointer(file)
        lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": length}
        document |= {"size": file.size, "blobId": oid, "lfs": lfs}
    return document


def _pointer(file: Artifact) -> tuple[str, int]:
    """Git's id, and the length, of the text by which git-lfs would stand for the file.

    Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n".encode()
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False)
    return blob.hexdigest(), len(text)


def _labels(version: ModelVersion) -> list[str]:
    """What the Hub calls a model's tags."""
    info = version.model
    safetensors = "safetensors" if any(file.path.endswith(".safetensors") for file in version.files) else None
    terms = f"license:{info.license}" if info.license else None
    labels = (info.format, safetensors, info.task, *(info.languages or ()), terms)
    return list(dict.fromkeys(label for label in labels if label))


def _card(info: ModelInfo) -> Document:
    known = {"license": info.license, "language": list(info.languages or ()) or None}
    return {key: value for key, value in known.items() if value}


def _ref(kind: str, name: str, commit: str) -> Document:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
