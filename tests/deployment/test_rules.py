from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.configuration import ConfigurationManager, sections
from modelyard.deployment.routing import Traffic, route_table
from modelyard.deployment.rules import LatestRules, Rules, mixed
from modelyard.errors import InvalidInput, StoreError
from modelyard.gateway.routes import MAX_WEIGHT, Route, RouteTable
from modelyard.store import Memory

from .builders import V1, V2, V3, replica, serving

DEPLOYMENTS = {
    "production": {"digit": serving(V1), "letter": serving(V1)},
    "staging": {"digit": serving(V2), "vector": serving(V3)},
}
REPLICAS = [
    replica("p", V1),
    replica("l", V1, model="letter"),
    replica("s", V2, environment="staging"),
    replica("v", V3, environment="staging", model="vector"),
]
TAGS = {"digit": {"best": str(V2.version)}}


def rules(**given: Mapping[str, Any]) -> Rules:
    return Rules(**{s: {k: sections.parse(s, k, v) for k, v in values.items()} for s, values in given.items()})


def table(*, ready: str = "plsv", **given: Mapping[str, Any]) -> RouteTable:
    there = [r for r in REPLICAS if r.id in ready]
    return route_table(DEPLOYMENTS, there, Traffic(frozenset(ready)), TAGS, rules(**given))


def route(made: RouteTable, name: str) -> Route:
    [found] = [route for route in made.routes if name in route.names]
    return found


def shares(made: RouteTable, name: str) -> dict[str, int]:
    return {made.backend(b).label.partition("@")[0]: weight for b, weight in route(made, name).weights}


def test_a_split_by_versions_environments_and_tags() -> None:
    for part in ("v1.2.0", "staging", "best"):
        made = table(routing={"digit": {"split": {"v1.1.0": 90, part: 10}}})
        assert shares(made, "digit") == shares(made, "digit:production") == {"digit:v1.1.0": 9, "digit:v1.2.0": 1}
        assert shares(made, "digit:staging") == {"digit:v1.2.0": 1}


def test_parts_that_name_the_same_version_add_up() -> None:
    made = table(routing={"digit": {"split": {"v1.1.0": 1, "production": 1, "best": 2}}})
    assert shares(made, "digit") == {"digit:v1.1.0": 1, "digit:v1.2.0": 1}


@pytest.mark.parametrize(
    ("split", "ready", "expected"),
    [
        ({"v1.1.0": 1, "v9.0.0": 9}, "ps", {"digit:v1.1.0": 1}),
        ({"v1.1.0": 1, "staging": 9}, "p", {"digit:v1.1.0": 1}),
        ({"v1.1.0": 1, "staging": 9}, "s", {"digit:v1.2.0": 1}),
        ({"v1.1.0": 1, "staging": 0}, "ps", {"digit:v1.1.0": 1}),
        ({"staging": 9}, "p", {"digit:v1.1.0": 1}),
        ({"v1.1.0": 0, "staging": 0}, "ps", {"digit:v1.1.0": 1}),
        ({"staging": 9}, "", {"digit:v1.1.0": 1}),
    ],
)
def test_what_is_not_there_gets_nothing(split: dict[str, int], ready: str, expected: dict[str, int]) -> None:
    assert shares(table(ready=ready, routing={"digit": {"split": split}}), "digit") == expected


def test_a_rollout_shares_its_part_of_the_split() -> None:
    there = [replica("a", V1), replica("b", V1), replica("c", V2), replica("s", V3, environment="staging")]
    wanted = {"production": {"digit": serving(V1, V2, replicas=3)}, "staging": {"digit": serving(V3)}}
    given = rules(routing={"digit": {"split": {"production": 3, "staging": 1}}})
    made = route_table(wanted, there, Traffic(frozenset("abcs")), rules=given)
    assert shares(made, "digit") == {"digit:v1.1.0": 2, "digit:v1.2.0": 1, "digit:v1.3.0": 1}


def test_mirrors_fallbacks_deadlines_and_bounds() -> None:
    rule = {
        "mirror": {"to": "digit:staging", "percent": 5},
        "fallback": ["nobody", "letter", "digit:production", "letter"],
        "timeout_s": 2,
        "max_requests": 7,
    }
    made = table(routing={"digit": rule, "digit:v1.1.0": {"max_requests": 5}, "letter": {"mirror": {"to": "none"}}})
    found = route(made, "digit")
    assert found.mirror is not None
    assert (found.mirror.to, found.mirror.percent) == ("digit:staging", 5)
    assert (found.fallback, found.timeout_s) == (("letter",), 2)
    assert route(made, "letter").mirror is None
    assert {backend.max_requests for backend in made.backends if backend.model == "digit"} == {5, None}


def test_tasks_lead_to_the_models_of_their_variants() -> None:
    made = table(embeddings={"search": {"variants": {"vector:staging": 3, "letter": 1, "nobody": 5}}, "none": "nobody"})
    assert shares(made, "task:search") == {"vector:v1.3.0": 3, "letter:v1.1.0": 1}
    assert "task:none" not in made.names
    assert shares(table(ready="l", embeddings={"s": {"variants": {"vector:staging": 3, "letter": 1}}}), "task:s") == {
        "letter:v1.1.0": 1
    }
    assert shares(table(ready="", embeddings={"s": "letter"}), "task:s") == {"letter:v1.1.0": 1}  # it answers 503
    split = {"digit": {"split": {"v1.1.0": 1, "staging": 1}}}
    assert len(shares(table(routing=split, embeddings={"s": "digit"}), "task:s")) == 2


def test_engines_elsewhere() -> None:
    made = table(external={"big": {"engine": "vllm", "url": "https://Host.example/"}, "digit": OLLAMA})
    big, digit = (made.backend(route(made, name).weights[0][0]) for name in ("big", "digit"))
    assert big.remote is not None
    assert (big.remote.host, big.remote.port, big.remote.tls) == ("host.example", 443, True)
    assert (big.label, big.internal_name, big.engine) == ("big@external", "big", "vllm")
    assert (digit.label, digit.internal_name, digit.engine) == ("digit@external", "llama3.2:1b", "ollama")
    assert shares(made, "digit:production") == {"digit:v1.1.0": 1}


OLLAMA = {"engine": "ollama", "url": "http://10.0.0.7:11434", "model": "llama3.2:1b"}


@pytest.mark.parametrize(
    "url", ["http://a b", "http://x:0", "http://x:99999", "http://u:p@x", "http://[::1", "http://x_y%", "http://-"]
)
def test_an_address_that_envoy_would_refuse_is_no_rule(url: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        rules(external={"big": {"engine": "vllm", "url": url}})


def test_a_section_that_can_not_be_read_or_is_wrong_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    now: dict[str, Any] = {"routing": {"digit": sections.parse("routing", "digit", {"timeout_s": 1})}}

    class Section:
        problem = ""

        def __init__(self, name: str) -> None:
            if away:
                raise StoreError("the store is away")
            self.name = name

        @property
        def parsed(self) -> Mapping[str, Any]:
            found: Mapping[str, Any] = now.get(self.name, {})
            return found

    away = True
    latest = LatestRules(Section)
    for _ in range(3):
        assert latest.read() == Rules()
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["the store is away"] * 3  # sections
    caplog.clear()
    away = False
    assert latest.read().routing["digit"].timeout_s == 1
    Section.problem = "the store is away again"
    now["external"] = {"big": sections.parse("external", "big", OLLAMA)}
    for _ in range(3):
        assert latest.read().routing["digit"].timeout_s == 1
    assert latest.read().external.keys() == {"big"}
    now["external"] = {"big": sections.parse("external", "big", {"engine": "vllm", "url": "http://a b"})}
    assert latest.read().external["big"].engine == "ollama"
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        *["the store is away again"] * 3,
        "'http://a b' is not an engine's address; write it as http://host:port",
    ]
    now |= {"routing": {}, "external": {}}
    assert latest.read() == Rules()


def test_what_is_configured_becomes_a_rule() -> None:
    configuration = ConfigurationManager(Memory(), user="somebody")
    latest = LatestRules(configuration.watch)
    assert latest.read().routing == {}
    elsewhere = ConfigurationManager(configuration.storage, user="somebody")
    elsewhere.set_config("routing", "digit", {"timeout_s": 3})
    deadline = time.monotonic() + 15
    while not latest.read().routing:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert latest.read().routing["digit"].timeout_s == 3


@given(st.lists(st.tuples(st.integers(0, 10**12), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**6)))))
def test_mixed_weights_always_fit(parts: list[tuple[int, dict[str, int]]]) -> None:
    made = mixed(parts)
    wanted = {b for weight, shares in parts for b, own in shares.items() if weight and own}
    assert made.keys() == wanted
    assert 0 <= sum(made.values()) <= MAX_WEIGHT


NAMES = st.sampled_from(["digit", "digit:staging", "digit:v1.2.0", "letter", "vector", "vector:staging", "nobody"])
RULE = st.fixed_dictionaries(
    {},
    optional={
        "mirror": st.fixed_dictionaries({"to": NAMES}),
        "fallback": st.lists(NAMES),
        "max_requests": st.integers(1, 9),
    },
)


def others_only(rules: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without fallbacks of a name to itself, which are refused when they are set."""
    return {
        name: rule | {"fallback": [other for other in rule["fallback"] if other != name]}
        if "fallback" in rule
        else rule
        for name, rule in rules.items()
    }


SPLIT = st.fixed_dictionaries(
    {
        "split": st.dictionaries(
            st.sampled_from(["v1.1.0", "v1.2.0", "staging", "best", "v7.0.0"]), st.integers(0, 10**9)
        )
    }
)


@given(
    ready=st.text("plsv", max_size=4),
    routing=st.dictionaries(NAMES, RULE).map(others_only),
    split=SPLIT,
    external=st.dictionaries(NAMES, st.just(OLLAMA)),
    embeddings=st.dictionaries(
        st.sampled_from(["a", "b"]),
        st.fixed_dictionaries(
            {
                "variants": st.dictionaries(NAMES, st.integers(0, 5), min_size=1).filter(
                    lambda weights: any(weights.values())
                )
            }
        ),
    ),
)
def test_no_rules_break_a_table(ready: str, routing: dict[str, Any], split: dict[str, Any], **others: Any) -> None:
    """RouteTable itself refuses what contradicts itself."""
    made = table(ready=ready, routing=routing | {"digit": routing.get("digit", {}) | split}, **others)
    assert {"digit", "letter", "digit:production"} <= set(made.names)
