"""The gateway: a table of routes, and the Envoy that follows it.

Importing this loads neither Envoy nor an HTTP client.
"""

from modelyard.gateway.envoy import Gateway
from modelyard.gateway.routes import Backend, Endpoint, Mirror, Remote, Route, RouteTable

__all__ = ["Backend", "Endpoint", "Gateway", "Mirror", "Remote", "Route", "RouteTable"]
