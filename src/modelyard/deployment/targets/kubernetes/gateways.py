"""What all gateways of a cluster have counted, asked of each of them. Knows addresses, not what the counts mean."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from modelyard.engines.http import bearer
from modelyard.errors import Unavailable
from modelyard.gateway.statistics import Counts, Statistics, read

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Gateways:
    """`host`: a name that has the addresses of all gateways; `port`: where their APIs listen."""

    host: str
    port: int
    token: SecretStr | None = None

    def statistics(self) -> Statistics:
        """The sum. Raises Unavailable when one of them can't be asked: a part of it would look like the whole."""
        with httpx.Client(timeout=_TIMEOUT_S, headers=bearer(self.token), trust_env=False) as client:
            return read(*(self._ask(client, address) for address in self._addresses()))

    def _addresses(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable(
                f"the gateways are not found at {self.host}: {error.strerror}",
                remedy="set kubernetes.gateways to a name that has the addresses of all of them",
            ) from error
        return sorted({str(address[0]) for *_, address in found})

    def _ask(self, client: httpx.Client, address: str) -> Counts:
        where = f"[{address}]" if ":" in address else address
        try:
            answer = client.get(f"http://{where}:{self.port}/statistics")
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _silent(address, str(error)) from error
        if answer.status_code != httpx.codes.OK:
            raise _silent(address, f"{answer.status_code}, {found.get('error', '')}")
        return found["counts"], {cluster: (labels[0], labels[1]) for cluster, labels in found["clusters"].items()}


def _silent(address: str, why: str) -> Unavailable:
    return Unavailable(
        f"the gateway at {address} does not say what it has counted: {why}",
        remedy="see kubernetes.gateways and api.port; with tokens MODELYARD_TOKEN needs the role viewer",
    )
