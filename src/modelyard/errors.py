"""Every error a caller can meet, under one root.

    ModelyardError
    ├── InvalidInput       400  a name, path, file or request that can't be taken
    │   └── SettingsError  400  modelyard.toml or a MODELYARD_* variable can't be read
    ├── Refused            403  a policy says no: an untrusted pickle, a moved tag, missing evidence
    ├── NotFound           404  no such model, version, tag, file
    ├── AlreadyExists      409  the version (or its name in another spelling) is taken
    ├── Conflict           409  somebody else changed the same thing in between
    ├── IntegrityError     422  stored bytes are not the bytes that were registered
    ├── ValidationFailed   422  a version did not pass its validation suite
    ├── RolloutFailed      500  a deployment did not reach its target and went back
    ├── MissingExtra       501  an optional library is not installed
    ├── EngineError        502  an inference engine gave no usable answer
    ├── StoreError         503  the object store can't be reached or misbehaves
    └── Unavailable        503  nothing is there (yet) to do the work

A message is one line: what is wrong, where, and what to do about it. `code` is stable; the command line prints the
message and exits with `exit_code`, HTTP answers use `status`.
"""

from __future__ import annotations

from typing import ClassVar


class ModelyardError(Exception):
    """The root. `remedy` says what to do, as a sentence of its own."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)


class InvalidInput(ModelyardError):
    code, status = "invalid_input", 400


class SettingsError(InvalidInput):
    code = "settings"


class Refused(ModelyardError):
    code, status = "refused", 403


class NotFound(ModelyardError):
    code, status = "not_found", 404


class AlreadyExists(ModelyardError):
    code, status = "already_exists", 409


class Conflict(ModelyardError):
    code, status = "conflict", 409


class IntegrityError(ModelyardError):
    code, status = "integrity", 422


class ValidationFailed(ModelyardError):
    code, status = "validation_failed", 422


class RolloutFailed(ModelyardError):
    code, status = "rollout_failed", 500


class MissingExtra(ModelyardError):
    """An optional library is absent; the message names the extra that holds it."""

    code, status = "missing_extra", 501

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed", remedy=f"pip install 'modelyard[{extra}]'")


class EngineError(ModelyardError):
    code, status = "engine", 502


class StoreError(ModelyardError):
    code, status = "store", 503
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with what was asked for


class Unavailable(ModelyardError):
    code, status = "unavailable", 503
