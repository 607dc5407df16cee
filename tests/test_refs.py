"""Names, versions, tags and digests: what is taken, what is refused, how versions are ordered."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import InvalidInput, Refused
from modelyard.refs import Digest, ModelRef, Version, parse_free_tag, parse_name, parse_selector, parse_tag

number = st.integers(0, 10**18 - 1)
label = number.map(str) | st.from_regex(r"[0-9]{0,3}[A-Za-z-][0-9A-Za-z-]{0,5}", fullmatch=True)
versions = st.builds(Version, number, number, number, st.lists(label, max_size=4).map(tuple))
part = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,10}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda text: text.lower() not in ("auto", "task") and text[0] not in "vV"
)
names = part | st.tuples(part, part).map("/".join)
tags = st.from_regex(r"[a-u][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(f"sha256:{data.hex()}"))
refs = st.builds(ModelRef, names, digest=st.none() | digests) | st.one_of(
    st.builds(ModelRef, names, version=versions, digest=st.none() | digests),
    st.builds(ModelRef, names, tag=tags, digest=st.none() | digests),
)


@given(refs)
def test_references_survive_being_written_and_read(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@given(versions)
def test_versions_survive_with_and_without_the_v(version: Version) -> None:
    assert Version.parse(str(version)) == version
    assert Version.parse(str(version).removeprefix("v")) == version


@given(versions, versions, versions)
def test_versions_are_totally_ordered(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    low, middle, high = sorted([a, b, c])
    assert low <= middle <= high
    assert low <= high


@given(versions)
def test_a_release_comes_after_its_prereleases(version: Version) -> None:
    release = Version(version.major, version.minor, version.patch)
    assert (version < release) == bool(version.prerelease)


@pytest.mark.parametrize(
    "ascending",
    [
        # https://semver.org/#spec-item-11
        ["1.0.0", "2.0.0", "2.1.0", "2.1.1"],
        ["1.0.0-alpha", "1.0.0"],
        [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ],
        ["1.9.0", "1.10.0", "1.11.0"],
        ["1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0--", "1.0.0-1a", "1.0.0-A", "1.0.0-a"],
    ],
)
def test_precedence_is_that_of_semver(ascending: list[str]) -> None:
    ordered = [Version.parse(text) for text in ascending]
    assert all(low < high for low, high in pairwise(ordered))
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled) == ordered


BAD_VERSIONS = {
    "": "it is not a semantic version",
    "1": "it is not a semantic version",
    "1.2": "it is not a semantic version",
    "1.2.3.4": "it is not a semantic version",
    "01.2.3": "it is not a semantic version",
    "1.2.3-": "it is not a semantic version",
    "1.2.3-01": "it is not a semantic version",
    "1.2.3-a..b": "it is not a semantic version",
    "V1.2.3": "it is not a semantic version",
    "vv1.2.3": "it is not a semantic version",
    "1.2.3\n": "it is not a semantic version",
    "-1.2.3": "it is not a semantic version",
    "١.2.3": "it is not a semantic version",
    "1.2.3+build": "build metadata does not order versions",
    f"{10**18}.0.0": "it is not a semantic version",
}


@pytest.mark.parametrize("text", BAD_VERSIONS)
def test_bad_versions_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Version.parse(text)
    assert str(refused.value) == (
        f"can't take {text!r} as a version: {BAD_VERSIONS[text]}; write it as v1.2.0 or v1.2.0-rc.1"
    )


GOOD_NAMES = ["a", "all-MiniLM-L6-v2", "org/Model_1.5", "3d-unet", "v", "vgg16", "GPT2", "x" * 96, "task1", "a_"]
BAD_NAMES = {
    "": "is not a model name",
    "-a": "is not a model name",
    ".hidden": "is not a model name",
    "a.": "is not a model name",
    "a-": "is not a model name",
    "a/b/c": "is not a model name",
    "/a": "is not a model name",
    "a/": "is not a model name",
    "a//b": "is not a model name",
    "..": "is not a model name",
    "../a": "is not a model name",
    "a/..": "is not a model name",
    "a b": "is not a model name",
    "a\n": "is not a model name",
    "a\x00": "is not a model name",
    "a\\b": "is not a model name",
    "modèle": "is not a model name",
    "a:b": "is not a model name",
    "a@b": "is not a model name",
    "a%2fb": "is not a model name",
    "x" * 97: "is not a model name",
    "auto": "'auto' is reserved",
    "TASK": "'TASK' is reserved",
    "org/auto": "'auto' is reserved",
    "v1.2.0": "looks like a version",
    "1.2": "looks like a version",
    "7": "looks like a version",
    "V2-beta": "looks like a version",
    "org/v1.0.0": "looks like a version",
    "999999999998.json": "looks like a version",
}


@pytest.mark.parametrize("text", GOOD_NAMES)
def test_good_names_are_kept_as_written(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize("text", BAD_NAMES)
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_name(text)
    assert BAD_NAMES[text] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.remedy


@pytest.mark.parametrize("text", ["a", "champion", "release-2", "latest", "production", "v", "very-good"])
def test_good_tags(text: str) -> None:
    assert parse_tag(text) == text


@pytest.mark.parametrize("text", ["", "A", "1st", "a-", "-a", "a_b", "a b", "v1", "v1-2", "a\n", "x" * 65, "ä"])
def test_bad_tags_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a tag; use lower-case letters"):
        parse_tag(text)


@pytest.mark.parametrize(
    ("tag", "remedy"),
    [("latest", "always the highest"), ("main", "always the highest"), ("staging", "stage"), ("production", "promote")],
)
def test_computed_tags_name_the_verb_that_moves_them(tag: str, remedy: str) -> None:
    with pytest.raises(Refused, match=f"the tag '{tag}' can't be set by hand; .*{remedy}"):
        parse_free_tag(tag)


def test_what_stands_behind_the_colon() -> None:
    assert parse_selector("1.2.0") == (Version(1, 2, 0), None)
    assert parse_selector("v1.2.0-rc.1") == (Version(1, 2, 0, ("rc", "1")), None)
    assert parse_selector("champion") == (None, "champion")
    with pytest.raises(InvalidInput, match="can't take 'v1' as a version"):
        parse_selector("v1")


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "a@", "a:v1.0.0@", "a:v1.0.0@sha256:12", f"a@SHA256:{'0' * 64}", f"a@sha256:{'G' * 64}", "a:b:c"],
)
def test_bad_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        ModelRef.parse(text)


def test_a_digest_shows_its_beginning() -> None:
    digest = Digest.parse(f"sha256:{'0123456789abcdef' * 4}")
    assert (digest.short, digest.hex) == ("0123456789ab", "0123456789abcdef" * 4)
    with pytest.raises(InvalidInput, match="'sha256:12' is not a digest; write it as sha256: and 64 hex digits"):
        Digest.parse("sha256:12")
