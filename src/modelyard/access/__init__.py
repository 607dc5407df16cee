"""Access by token: who may ask for what. Signing keys, tokens, the journal that every machine follows, and the check.

Importing this loads no cryptography. Knows nothing of routes or of HTTP.
"""

from modelyard.access.journal import AccessJournal, KeyRecord, TokenRecord
from modelyard.access.rules import Fresh, Issuer, PublicKey, Rules

__all__ = ["AccessJournal", "Fresh", "Issuer", "KeyRecord", "PublicKey", "Rules", "TokenRecord"]
