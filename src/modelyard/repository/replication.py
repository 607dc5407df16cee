"""Copying a version into another repository, digest kept: from the bucket of development into that of production."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.errors import IntegrityError
from modelyard.repository.evidence import EvidenceJournal
from modelyard.repository.manifest import ModelVersion
from modelyard.repository.repository import ModelRepository
from modelyard.repository.signatures import KIND as SIGNATURE
from modelyard.store.objects import ObjectFile
from modelyard.store.transfer import Progress, no_progress


def copy(
    source: ModelRepository,
    version: ModelVersion,
    destination: ModelRepository,
    *,
    tags: Sequence[str] = (),
    progress: Progress = no_progress,
) -> ModelVersion:
    """Register the version there under its name and number, with its metadata, lineage and signatures.

    A version that is there already with the same content is left as it is. Bytes are checked on the way. Raises what
    `ModelRepository.register` raises.
    """
    files = [ObjectFile(source.storage, file.key, file.path, file.size, file.sha256) for file in version.files]
    copied = destination.register(
        version.name,
        version.version,
        files,
        version.metadata,
        tags=tags,
        lineage=version.lineage,
        trust_pickle=version.trusted_pickle,
        progress=progress,
    )
    if copied.digest != version.digest:
        raise IntegrityError(f"{version.ref} arrived as {copied.digest}", remedy="verify it where it comes from")
    # A signature speaks for itself; other evidence is gathered anew where the version will run.
    there = EvidenceJournal(destination.storage, SIGNATURE)
    known = there.newest(copied.ref)
    for key, evidence in EvidenceJournal(source.storage, SIGNATURE).newest(version.ref).items():
        if key not in known:
            there.add(copied.ref, key, evidence, by=evidence.by)
    return copied
