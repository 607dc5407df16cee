"""The sections that modelyard reads take only values that mean something."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.configuration import ConfigurationManager, sections
from modelyard.configuration.sections import External, Mirror, RateLimit, Rollout, RoutingRule, Variants
from modelyard.errors import InvalidInput
from modelyard.store import Memory

GOOD: list[tuple[str, str, Any, Any]] = [
    ("embeddings", "semantic-search", "all-MiniLM-L6-v2", Variants(variants={"all-MiniLM-L6-v2": 1})),
    ("embeddings", "clustering", {"variants": {"a:v1.0.0": 9, "b": 1}}, Variants(variants={"a:v1.0.0": 9, "b": 1})),
    ("engines", "tiny", "vllm", "vllm"),
    ("external", "old", {"engine": "torchserve", "url": "http://10.0.0.1:8080"}, None),
    ("rate-limits", "*", {"requests_per_minute": 60}, RateLimit(requests_per_minute=60)),
    ("routing", "digits", {"split": {"v1.0.0": 9, "staging": 1}}, RoutingRule(split={"v1.0.0": 9, "staging": 1})),
    ("routing", "digits", {"mirror": {"to": "digits:staging"}}, RoutingRule(mirror=Mirror(to="digits:staging"))),
    ("validation", "digits", {"name": "digits"}, {"name": "digits"}),
    ("validation", "task:text-generation", {"scanned": True}, {"scanned": True}),
    ("events", "webhook", "https://hooks.example.com/m?team=a", "https://hooks.example.com/m?team=a"),
    ("rollout", "*", {"strategy": "canary", "steps": "5,25:60,50:resume"}, None),
    ("rollout", "digits", {"steps": "5,50"}, Rollout(steps="5,50")),
    ("our-own", "anything", {"at": ["all"]}, {"at": ["all"]}),
]
UNEQUAL = {
    "external": External(engine="torchserve", url="http://10.0.0.1:8080"),
    "rollout": Rollout(strategy="canary", steps="5,25:60,50:resume"),
}
BAD: list[tuple[str, str, Any, str]] = [
    ("embeddings", "clustering", {"variants": {}}, "name at least one variant"),
    ("embeddings", "clustering", {"variants": {"a": 0, "b": 0}}, "give at least one variant a weight above 0"),
    ("embeddings", "clustering", "no such/model/name", "name"),
    ("engines", "tiny", "VLLM", "can't be 'VLLM': it must be 'vllm'"),
    ("engines", "two words", "vllm", "name"),
    (
        "external",
        "old",
        {"engine": "torchserve", "url": "10.0.0.1"},
        "^external.old.url can't be '10.0.0.1'; write an address such as http://",
    ),
    ("rate-limits", "digits", 5, "write a JSON object with some of requests_per_minute, burst"),
    ("engines", "tiny", 5, "use one of vllm, ollama, llamacpp, pytorch, torchserve"),
    ("rate-limits", "digits", {"requests_per_minute": 0}, "requests_per_minute: it must be at least 1"),
    ("routing", "digits", {"splits": {}}, "^routing has no 'splits' .in digits.; use one of split, mirror, fallback"),
    ("routing", "digits", {"fallback": ["digits"]}, "falls back to digits itself; name another model"),
    ("routing", "digits", {"max_requests": 2**31 + 1}, "max_requests: it must be at most 2147483647"),
    ("rate-limits", "digits", {"requests_per_minute": 2**31 + 1}, "it must be at most 2147483647"),
    ("routing", "digits", "{bad", "'{bad' is broken JSON: .*; mend it"),
    ("embeddings", "clustering", "{bad", "is broken JSON"),
    ("rollout", "digits", {"bounds": {"confidenc": 1}}, "rollout.bounds has no 'confidenc' .*min_requests, "),
    ("rate-limit", "digits", {}, "did you mean rate-limits?"),
    ("routing", "digits", {"split": {"V1": 1}}, "V1"),
    ("routing", "digits", {"fallback": ["two words"]}, "two words"),
    ("routing", "*", {}, "name"),
    ("validation", "digits", "suite.yaml", "write a JSON object"),
    ("validation", "two words", {}, "name"),
    ("events", "webhook", "hooks.example.com", "write an address such as https://"),
    ("events", "mail", "https://hooks.example.com", "has no 'mail'; set events webhook"),
    ("rollout", "digits", {"steps": "a few"}, "^rollout.digits.steps can't be 'a few'; write steps such as 5,25"),
    (
        "rollout",
        "*",
        {"metrics": ["quality:loss"]},
        r"^rollout.\*.metrics can't be 'quality:loss'; write each as quality",
    ),
    ("rollout", "digits", {"bounds": {"confidence": 1}}, "bounds.confidence: it must be below 1"),
    (
        "rollout",
        "digits",
        {"strategy": "rolling", "steps": "5,25", "step_pause_s": 60},
        "^rollout.digits: a rolling update has no steps; use the strategy canary, or leave steps and step_pause_s out$",
    ),
    ("rollout", "*", {"strategy": "rolling", "step_pause_s": 5}, "no steps; .* leave step_pause_s out"),
]


@pytest.mark.parametrize(("section", "key", "value", "expected"), GOOD)
def test_good_values_become_their_types(section: str, key: str, value: Any, expected: Any) -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    manager.set_config(section, key, value)
    expected = expected or UNEQUAL[section]
    assert manager.parsed(section)[key] == expected
    assert manager.get_config(section, key) == value


@pytest.mark.parametrize(("section", "key", "value", "reason"), BAD)
def test_bad_values_are_refused_when_they_are_set(section: str, key: str, value: Any, reason: str) -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    with pytest.raises(InvalidInput, match=reason):
        manager.set_config(section, key, value)
    assert manager.history(section) == []


def test_each_section_is_described() -> None:
    assert sorted(sections.SECTIONS) == [
        *("embeddings", "engines", "events", "external", "rate-limits", "rollout", "routing", "validation"),
    ]
