"""How what obstore says becomes one line."""

from __future__ import annotations

import pytest

from modelyard.store.failures import reason

NO_ROLE = (
    "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1.07ms - "
    "Server returned non-2xx status code: 403 Forbidden: denied\n\nDebug source:\nGeneric {"
)
SPENT = ", after 10 retries, max_retries: 10, retry_timeout: 90s "
AWAY = (
    f"Generic S3 error: Error performing GET http://host:1/yard/a in 4.7s{SPENT} - "
    "HTTP error: error sending request\n\nDebug source:"
)
XML = "Generic S3 error: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>\n\nD"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NO_ROLE, "there are no credentials in the environment, in a profile or by a role of this machine"),
        (AWAY, "no answer from http://host:1 to 11 attempt(s)"),
        (AWAY.replace(SPENT, ""), "no answer from http://host:1 to 1 attempt(s)"),
        (XML, "Access Denied. (AccessDenied)"),
        ("one\ntwo", "one"),
        ("GET https://h/c?sig=secret failed\nDebug", "GET https://h/c?sig=… failed"),
        ("", "OSError"),
    ],
)
def test_one_line_says_it(text: str, said: str) -> None:
    assert reason(OSError(text)) == said
