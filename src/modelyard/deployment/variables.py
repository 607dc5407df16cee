"""The variables by which a replica's process gets the settings of those who start it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelyard.settings import Settings


def replica_variables(settings: Settings, store: str, trusted_keys: Sequence[str]) -> dict[str, str]:
    """What matters to a replica wherever it runs; `trusted_keys` are files there."""
    serving = settings.serving.model_dump(mode="json", exclude_none=True)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in serving.items()}
    return {
        "MODELYARD_STORE": store,
        "MODELYARD_CACHE_LIMIT": str(int(settings.cache_limit or 0)),
        "MODELYARD_ENGINES": settings.engines.model_dump_json(exclude_unset=True),
        **{f"MODELYARD_SERVING__{key.upper()}": text for key, text in texts.items()},
        "MODELYARD_SECURITY__TRUSTED_KEYS": json.dumps(list(trusted_keys)),
        "MODELYARD_SECURITY__REQUIRE_SIGNATURE": json.dumps(settings.security.require_signature),
    }
