from __future__ import annotations

from modelyard.deployment.crashes import crashes

from .builders import V1, V2, replica


def test_crashes_in_words() -> None:
    first = replica("a", V2, "exited", since_s=9.0, error="no memory")
    second = replica("b", V2, "exited", since_s=0.2, error="no weights")
    old = replica("c", V2, "exited", since_s=301.0)
    assert crashes([replica("d", V2), old]) == ""
    assert crashes([first]) == "v1.2.0 crashed once in 5 min: no memory"
    assert crashes([first, second]) == "v1.2.0 crashed 2 times in 5 min: no weights; next try in 0 s"
    assert crashes([first, replica("e", V2, "exited", since_s=0.1), second]) == (
        "v1.2.0 crashed 3 times in 5 min: without a word; next try in 1 s"
    )
    again = replica("f", V2, "starting", since_s=0.1)
    assert crashes([first, second, again]) == "v1.2.0 crashed 2 times in 5 min: no weights"
    other = replica("g", V1, "exited", since_s=2.0, error="old")
    assert crashes([other, first, old]) == "v1.1.0 crashed once in 5 min: old"
