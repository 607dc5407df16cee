"""Which value counts, and where it comes from: defaults < bucket < environment < process."""

from __future__ import annotations

import pytest

from modelyard.configuration import ConfigurationManager, Found
from modelyard.configuration.sections import RateLimit
from modelyard.errors import InvalidInput, ModelyardError, SettingsError
from modelyard.settings import load_settings
from modelyard.store import Memory

SEARCH = ("embeddings", "semantic-search")


def manager(environ: dict[str, str] | None = None, **options: object) -> ConfigurationManager:
    return ConfigurationManager(Memory(), user="tester", environ=environ or {}, **options)  # type: ignore[arg-type]


def test_each_layer_counts_above_the_one_before() -> None:
    config = manager()
    assert config.effective("embeddings") == {"semantic-search": Found("all-MiniLM-L6-v2", "default")}
    config.set_config(*SEARCH, "bge")
    assert config.effective("embeddings")["semantic-search"] == Found("bge", "bucket")

    name = "MODELYARD_CONFIG__EMBEDDINGS__SEMANTIC_SEARCH"
    config = ConfigurationManager(config.storage, user="tester", environ={name: "e5"})
    assert config.effective("embeddings")["semantic-search"] == Found("e5", f"variable {name}")
    assert config.get_config("embeddings", "semantic_search") == "e5"

    config.override("embeddings", "semantic_search", "gte")
    assert config.effective("embeddings")["semantic-search"] == Found("gte", "process")
    assert config.history("embeddings")[-1].state == {"semantic-search": "bge"}


def test_overrides_can_be_given_at_once() -> None:
    config = manager(overrides={"limits": {"a": 1, "b": None}})
    assert config.get_section("limits") == {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("variables", "section", "expected"),
    [
        ({"LIMITS__RATE": "5"}, "limits", {"rate": 5}),
        ({"LIMITS__RATE": "five"}, "limits", {"rate": "five"}),
        ({"limits__rate": "5"}, "limits", {"rate": 5}),
        ({"OUR_LIMITS__MOST_AT_ONCE": "[1]"}, "our-limits", {"most-at-once": [1]}),
        ({"LIMITS": '{"Org/Model_x.1": 1}'}, "limits", {"Org/Model_x.1": 1}),
        ({"LIMITS": '{"rate": 1, "b": 2}', "LIMITS__RATE": "9"}, "limits", {"rate": 9, "b": 2}),
        (
            {"EMBEDDINGS": '{"clustering": {"variants": {"a": 1}}}'},
            "embeddings",
            {"clustering": {"variants": {"a": 1}}},
        ),
    ],
)
def test_variables(variables: dict[str, str], section: str, expected: dict[str, object]) -> None:
    config = manager({f"MODELYARD_CONFIG__{name}": text for name, text in variables.items()})
    found = {key: each for key, each in config.get_section(section).items() if key != "semantic-search"}
    assert found == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("EMBEDDINGS__CLUSTERING", "no such/model/name", "is not a model name"),
        ("EMBEDDINGS__CLUSTERING", '{"variants": {}}', "name at least one variant"),
        ("ENGINES", '{"tiny": "VLLM"}', "engines.tiny can't be 'VLLM'"),
        ("ENGINES", "vllm", "a whole section is a JSON object"),
        ("LIMITS__RATE", "NaN", "can't be written as JSON"),
        ("9__RATE", "1", "'9' is not a configuration section"),
        ("LIMITS", '{"": 1}', "a configuration key can't be empty"),
    ],
)
def test_a_bad_variable_is_named(name: str, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=f"the variable MODELYARD_CONFIG__{name}: .*; mend or unset it") as caught:
        manager({f"MODELYARD_CONFIG__{name}": text})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_leave_these_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CONFIG__LIMITS__RATE", "5")
    monkeypatch.setenv("MODELYARD_CONFIG__LIMITS", "{}")
    assert load_settings().user
    assert ConfigurationManager(Memory(), user="tester").get_config("limits", "rate") == 5


def test_a_bad_override_is_refused() -> None:
    with pytest.raises(InvalidInput, match="requests_per_minute"):
        manager(overrides={"rate-limits": {"*": {}}})


def test_a_value_of_the_bucket_that_no_longer_fits_is_named() -> None:
    config = manager()
    config.storage.create(
        "config/engines/999999999998.json",
        b'{"number": 1, "id": "x", "at": "", "by": "", "why": "", "state": {"tiny": "abacus"}}',
    )
    with pytest.raises(ModelyardError, match=r"engines.tiny can't be 'abacus': .* \(from the bucket\); set another"):
        config.parsed("engines")


def test_parsed_values_come_from_all_layers() -> None:
    config = manager({"MODELYARD_CONFIG__RATE_LIMITS": '{"*": {"requests_per_minute": 60}}'})
    config.set_config("rate-limits", "digits", {"requests_per_minute": 5})
    assert config.parsed("rate-limits") == {
        "*": RateLimit(requests_per_minute=60),
        "digits": RateLimit(requests_per_minute=5),
    }
