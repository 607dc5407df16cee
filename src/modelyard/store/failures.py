"""What a failure of an object store means, in one line without anything secret. Knows obstore's words alone."""

from __future__ import annotations

import re

from modelyard.store.credentials import redact

_METADATA = "169.254.169.254"  # where a machine's own role is asked for when nothing else names credentials
_SILENT = re.compile(r"performing \w+ (\w+://[^/\s]+)\S* in [^\s,]+(?:, after (\d+) retries)?.* error sending request")
_XML_ERROR = re.compile(r"<Code>([^<]+)</Code>\s*<Message>([^<]+)</Message>")


def reason(error: Exception) -> str:
    """One line: the message inside an object store's XML, else the first line. Nothing secret is in it."""
    text = redact(str(error)) or type(error).__name__
    if _METADATA in text:
        return "there are no credentials in the environment, in a profile or by a role of this machine"
    if found := _SILENT.search(text):
        return f"no answer from {found[1]} to {int(found[2] or 0) + 1} attempt(s)"
    found = _XML_ERROR.search(text)
    return f"{found[2]} ({found[1]})" if found else text.splitlines()[0][:300]
