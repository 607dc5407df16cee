"""What is wrong with a pod, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.deployment.targets.kubernetes import names
from modelyard.errors import StoreError

if TYPE_CHECKING:
    from lightkube.models.core_v1 import ContainerState, ContainerStatus, Pod, PodCondition

CRASHES_ALLOWED = 1  # of all pods of one rollout; one may be bad luck
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """`crashes`: how often a container has ended by its version's fault. `log_of`: the container whose log may say
    more."""

    pod: str
    words: str
    hopeless: bool = False
    crashes: int = 0
    log_of: str = ""

    def __str__(self) -> str:
        return f"pod {self.pod}: {self.words}"


def troubles(pods: Iterable[Pod]) -> list[Trouble]:
    """The worst first."""
    found = [trouble for pod in pods for trouble in _of(pod)]
    return sorted(found, key=lambda each: (not each.hopeless, -each.crashes, each.pod))


def by_model(pods: Iterable[Pod]) -> dict[tuple[str, str], str]:
    """Environment and model → the worst of its pods, in words."""
    found: dict[tuple[str, str], list[Pod]] = {}
    for pod in pods:
        labels, notes = (pod.metadata.labels or {}, pod.metadata.annotations or {}) if pod.metadata else ({}, {})
        found.setdefault((labels.get(names.ENVIRONMENT, ""), notes.get(names.MODEL, "")), []).append(pod)
    worst = {model: troubles(own)[:1] for model, own in found.items()}
    return {model: str(trouble) for model, own in worst.items() for trouble in own}


def keeps_crashing(found: Iterable[Trouble]) -> bool:
    return sum(each.crashes for each in found) > CRASHES_ALLOWED


def _of(pod: Pod) -> Iterator[Trouble]:
    status, metadata = pod.status, pod.metadata
    if status is None or metadata is None or metadata.deletionTimestamp:
        return
    name = metadata.name or ""
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield Trouble(name, f"no node takes it: {_line(condition.message or condition.reason)}")
    if _is_unheard_of(pod):
        yield Trouble(name, f"its node {pod.spec.nodeName if pod.spec else ''} does not answer")
    for own in status.initContainerStatuses or []:
        yield from _container(name, own, "its files do not come", done_is_well=True)
    for own in status.containerStatuses or []:
        yield from _container(name, own, "it does not stay up")
    if status.phase == "Failed" and not (status.containerStatuses or status.initContainerStatuses):
        yield Trouble(name, _line(status.message or status.reason) or "it failed", crashes=1)


def _is_unheard_of(pod: Pod) -> bool:
    """Its kubelet said that it is ready; the cluster, to which the kubelet no longer speaks, says that it is not."""
    conditions = (pod.status.conditions if pod.status else None) or []
    gates = pod.spec.readinessGates if pod.spec else None
    return not gates and _state(conditions, "Ready") == "False" and _state(conditions, "ContainersReady") == "True"


def _state(conditions: Iterable[PodCondition], kind: str) -> str:
    return next((each.status for each in conditions if each.type == kind), "")


def _container(pod: str, status: ContainerStatus, what: str, *, done_is_well: bool = False) -> Iterator[Trouble]:
    state = status.state
    waiting = state.waiting if state else None
    reason = (waiting.reason if waiting else None) or ""
    if waiting and reason in _IMAGE:
        words = f"the image {status.image} can't be pulled ({reason})"
        yield Trouble(pod, _with(words, waiting.message), hopeless=reason in _HOPELESS)
        return
    if waiting and reason.startswith("CreateContainer"):
        yield Trouble(pod, _with(f"its container can't be made ({reason})", waiting.message))
        return
    ended = [each.terminated for each in (state, status.lastState) if each and each.terminated]
    if done_is_well:
        ended = [each for each in ended if each.exitCode != 0]
    crashes = _crashes(status, bool(state and state.running), bool(ended))
    if crashes:
        code = f"exit code {ended[0].exitCode}" if ended else "its exit code is not known"
        said = _last_line(ended[0].message) if ended else ""
        words = _with(f"{what} ({code}, {crashes} {'time' if crashes == 1 else 'times'})", said)
        away = bool(ended) and ended[0].exitCode == StoreError.exit_code
        yield Trouble(pod, words, crashes=0 if away else crashes, log_of="" if said else status.name)


def _crashes(status: ContainerStatus, runs: bool, ended: bool) -> int:
    """It is restarted after each crash, but for the last one when it does not run."""
    return status.restartCount + (0 if runs or not ended or _ended_well(status.state) else 1)


def _ended_well(state: ContainerState | None) -> bool:
    return bool(state and state.terminated and state.terminated.exitCode == 0)


def _with(words: str, more: str | None) -> str:
    return f"{words}: {_line(more)}" if more else words


def _line(text: str | None) -> str:
    return " ".join((text or "").split())[:300]


def _last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines()]
    return next((line[:300] for line in reversed(lines) if line), "")
