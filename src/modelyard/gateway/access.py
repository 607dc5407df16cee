"""Access by token inside Envoy: who may use which route, and what of it changes where. Pure.

The filters stand in the listener, which never changes. What they hold comes from elsewhere: the keys from a discovery
file of their own (ECDS), the rest from the routes (RDS); neither cuts a stream. The filters, in order:

1. TOKENS checks the token's signature and expiry and notes its claims as metadata of the request.
2. REVOCATIONS refuses those that were revoked, or everyone while no token can be good.
3. HEADERS replaces what a client says of its identity by what the token says, and takes the token away.
4. PERMISSIONS (after the model is known) looks at role and models, for each route.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from modelyard.access.roles import at_least, covering, model_of
from modelyard.access.rules import CLOCK_SKEW_S, OWN_ISSUER, Issuer, Rules
from modelyard.gateway.replies import Document, Problem
from modelyard.settings import Role

TOKENS = "modelyard.access"
REVOCATIONS = "modelyard.revocations"
HEADERS = "modelyard.headers"
PERMISSIONS = "modelyard.permissions"
SUBJECT_HEADER = "x-modelyard-subject"
ISSUER_CLUSTER = "access-issuer"
NAMESPACE = "envoy.filters.http.jwt_authn"
OWN, ISSUERS = "payload", "oidc"  # where the claims are in NAMESPACE: of our own tokens, of the issuer's
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_TYPE = f"{_FILTERS}.jwt_authn.v3.JwtAuthentication"
_NEEDED = "needed"
_REVOKED = "revoked"
_CACHED_TOKENS = 10_000
_JWKS_KEPT = "300s"
_WWW_AUTHENTICATE = {"www-authenticate": 'Bearer realm="modelyard"'}

UNAUTHORIZED = Problem(
    401,
    "a valid token is needed; send it as 'Authorization: Bearer <token>', or as your client's API key",
    "unauthorized",
)
EXPIRED = Problem(401, "the token has expired; ask an administrator for another one", "token_expired")
REVOKED = Problem(401, "the token was revoked; ask an administrator for another one", "token_revoked")
FORBIDDEN = Problem(
    403,
    "the token is good, but not for this: its role or its models do not allow it; ask an administrator",
    "forbidden",
)


def filters(access_path: str) -> tuple[list[Document], list[Document]]:
    """What stands before the body is read, and what stands after it, when the model is known."""
    source = {"resource_api_version": "V3", "path_config_source": {"path": access_path}}
    tokens = {"name": TOKENS, "config_discovery": {"config_source": source, "type_urls": [_TYPE]}}
    return [tokens, _rbac(REVOCATIONS), _headers()], [_rbac(PERMISSIONS)]


def refusals() -> list[tuple[Document, Problem, dict[str, str]]]:
    """Conditions on Envoy's own answers, what is said instead, and with which headers."""
    return [
        (_details(f"contains('[{_REVOKED}]')"), REVOKED, _WWW_AUTHENTICATE),
        (_details("contains('Jwt_is_expired')"), EXPIRED, _WWW_AUTHENTICATE),
        (_details("startsWith('jwt_authn_access_denied')"), UNAUTHORIZED, _WWW_AUTHENTICATE),
        (_details("startsWith('rbac_access_denied')"), FORBIDDEN, {}),
    ]


def clusters(issuer: Issuer | None) -> list[Document]:
    """Where the issuer's keys are fetched from. Settings say it, so it stands as long as Envoy runs."""
    if issuer is None:
        return []
    address = urlsplit(issuer.jwks_uri)
    secure = address.scheme == "https"
    port = address.port or (443 if secure else 80)
    endpoint = {"address": {"socket_address": {"address": address.hostname, "port_value": port}}}
    cluster: Document = {
        "name": ISSUER_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": ISSUER_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    if secure:
        context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": context,
                "sni": address.hostname,
                "auto_sni_san_validation": True,
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": issuer.ca_file}}},
            },
        }
    return [cluster]


def tokens(rules: Rules) -> Document:
    """The resource of the discovery file: what TOKENS checks."""
    providers: Document = {}
    if rules.keys:
        providers[OWN] = _provider(OWN_ISSUER, OWN) | {
            "local_jwks": {"inline_string": json.dumps({"keys": [key.jwk() for key in rules.keys]})}
        }
    if rules.issuer:
        remote = {"http_uri": {"uri": rules.issuer.jwks_uri, "cluster": ISSUER_CLUSTER, "timeout": "5s"}}
        providers[ISSUERS] = _provider(rules.issuer.issuer, ISSUERS) | {
            "audiences": list(rules.issuer.audiences),
            "remote_jwks": remote | {"cache_duration": _JWKS_KEPT, "async_fetch": {"fast_listener": True}},
        }
    needed = [{"provider_name": name} for name in providers]
    requirement = needed[0] if len(needed) == 1 else {"requires_any": {"requirements": needed}}
    config: Document = {"@type": _TYPE, "providers": providers}
    if needed:
        config["requirement_map"] = {_NEEDED: requirement}
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    return {"@type": kind, "name": TOKENS, "typed_config": config}


def everywhere(rules: Rules) -> Document:
    """`typed_per_filter_config` of the virtual host: what holds for every route that does not say otherwise."""
    if not rules.on:
        return {TOKENS: _tokens_off()}
    if rules.shut:
        return {TOKENS: _tokens_off(), REVOCATIONS: _policies("DENY", {_REVOKED: [{"any": True}]})}
    needed = {"@type": f"{_FILTERS}.jwt_authn.v3.PerRouteConfig", "requirement_name": _NEEDED}
    if not rules.revoked:
        return {TOKENS: needed}
    revoked = [_claim(OWN, ["jti"], {"string_match": {"exact": token}}) for token in rules.revoked]
    return {TOKENS: needed, REVOCATIONS: _policies("DENY", {_REVOKED: revoked})}


def nobody_asked() -> Document:
    """`typed_per_filter_config` of a route that is open to everyone."""
    return {TOKENS: _tokens_off(), REVOCATIONS: {"@type": f"{_FILTERS}.rbac.v3.RBACPerRoute"}}


def on_route(rules: Rules, names: Sequence[str]) -> Document:
    """`typed_per_filter_config` of a route that leads to the model of these names: callers ask, viewers look."""
    if not rules.on or rules.shut:
        return {}
    models = sorted({model_of(name) for name in names})
    reading = {"header": {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}}
    policies = {
        "call": {"permissions": [{"any": True}], "principals": _allowed(rules, at_least("caller"), models)},
        "look": {"permissions": [reading], "principals": _allowed(rules, at_least("viewer"), models)},
    }
    return {PERMISSIONS: _per_route({"action": "ALLOW", "policies": policies})}


def _allowed(rules: Rules, roles: tuple[Role, ...], models: Sequence[str]) -> list[Document]:
    """Principals: a token of ours, or one of the issuer's, with one of the roles and good for all of the models."""
    found: list[Document] = []
    if rules.keys:
        found.append(_all([_text_claim(OWN, ["role"], roles), *_models_claim(OWN, ["models"], models)]))
    if rules.issuer and (values := rules.issuer.values(roles)):
        role = _text_claim(ISSUERS, rules.issuer.role_claim.split("."), values)
        claim = rules.issuer.models_claim
        found.append(_all([role, *(_models_claim(ISSUERS, claim.split("."), models) if claim else [])]))
    return found or [{"not_id": {"any": True}}]


def _models_claim(provider: str, path: Sequence[str], models: Sequence[str]) -> list[Document]:
    return [_either(provider, path, {"safe_regex": {"regex": covering(model)}}) for model in models]


def _text_claim(provider: str, path: Sequence[str], values: Sequence[str]) -> Document:
    return _any([_either(provider, path, {"exact": value}) for value in values])


def _either(provider: str, path: Sequence[str], match: Document) -> Document:
    """A claim may be one text, or a list that has it."""
    one = {"string_match": match}
    return _any([_claim(provider, path, one), _claim(provider, path, {"list_match": {"one_of": one}})])


def _claim(provider: str, path: Sequence[str], value: Document) -> Document:
    keys = [{"key": key} for key in (provider, *path)]
    return {"sourced_metadata": {"metadata_matcher": {"filter": NAMESPACE, "path": keys, "value": value}}}


def _any(ids: list[Document]) -> Document:
    return ids[0] if len(ids) == 1 else {"or_ids": {"ids": ids}}


def _all(ids: list[Document]) -> Document:
    return ids[0] if len(ids) == 1 else {"and_ids": {"ids": ids}}


def _provider(issuer: str, key: str) -> Document:
    return {
        "issuer": issuer,
        "payload_in_metadata": key,
        "clock_skew_seconds": CLOCK_SKEW_S,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "jwt_cache_config": {"jwt_cache_size": _CACHED_TOKENS},
    }


def _headers() -> Document:
    def of(provider: str) -> Document:
        value = f"%DYNAMIC_METADATA({NAMESPACE}:{provider}:sub)%"
        return {"append": {"header": {"key": SUBJECT_HEADER, "value": value}, "append_action": "ADD_IF_ABSENT"}}

    mutations = [{"remove": SUBJECT_HEADER}, of(OWN), of(ISSUERS), {"remove": "authorization"}]
    kind = f"{_FILTERS}.header_mutation.v3.HeaderMutation"
    return {"name": HEADERS, "typed_config": {"@type": kind, "mutations": {"request_mutations": mutations}}}


def _rbac(name: str) -> Document:
    return {"name": name, "typed_config": {"@type": f"{_FILTERS}.rbac.v3.RBAC"}}


def _policies(action: str, policies: dict[str, list[Document]]) -> Document:
    anything = [{"any": True}]
    rules = {name: {"permissions": anything, "principals": principals} for name, principals in policies.items()}
    return _per_route({"action": action, "policies": rules})


def _per_route(rules: Document) -> Document:
    return {"@type": f"{_FILTERS}.rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}


def _tokens_off() -> Document:
    return {"@type": f"{_FILTERS}.jwt_authn.v3.PerRouteConfig", "disabled": True}


def _details(condition: str) -> Document:
    """A condition on what Envoy notes as the reason of an answer."""
    kind = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    config = {"@type": kind, "expression": f"response.code_details.{condition}"}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}}
