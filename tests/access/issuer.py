"""A small OpenID Connect issuer: it publishes a key, and signs whatever it is asked to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from modelyard.access import Issuer
from modelyard.settings import AccessSettings, Role

AUDIENCE = "modelyard-gateway"
URL = "https://login.example"
ROLES: tuple[tuple[str, Role], ...] = (("ml", "deployer"), ("staff", "caller"))


class IssuerServer:
    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        document = json.dumps({"keys": [public | {"kid": "one", "alg": "RS256", "use": "sig"}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def jwks_uri(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/keys"

    @property
    def settings(self) -> AccessSettings:
        return AccessSettings(
            oidc_issuer=URL,
            oidc_jwks_uri=self.jwks_uri,
            oidc_audience=(AUDIENCE,),
            oidc_roles=dict(ROLES),
            oidc_role_claim="realm_access.roles",
            oidc_models_claim="models",
        )

    @property
    def issuer(self) -> Issuer:
        return Issuer(URL, (AUDIENCE,), self.jwks_uri, ROLES, "realm_access.roles", "models")

    def token(self, roles: Any, models: Any = ("*",), *, key: Any = None, **claims: Any) -> str:
        payload = {
            "iss": URL,
            "aud": AUDIENCE,
            "sub": "ana@example",
            "exp": int(time.time()) + 600,
            "realm_access": {"roles": roles},
            "models": list(models) if isinstance(models, tuple) else models,
        }
        return jwt.encode(payload | claims, key or self.key, algorithm="RS256", headers={"kid": "one"})


@contextmanager
def issuing() -> Iterator[IssuerServer]:
    issuer = IssuerServer()
    thread = threading.Thread(target=issuer.server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.server.shutdown()
        issuer.server.server_close()
        thread.join(5)
