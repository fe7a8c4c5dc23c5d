"""TLS between two nodes' certificates as they lie on disk, without a network."""

from __future__ import annotations

import ssl

from keycache.pki import NodePki


def node_server(pki: NodePki) -> ssl.SSLContext:
    """As a node's gRPC server and its etcd: client certificates are required."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with_files(context, pki)


def node_client(pki: NodePki) -> ssl.SSLContext:
    return _with_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pki)


def _with_files(context: ssl.SSLContext, pki: NodePki) -> ssl.SSLContext:
    context.load_verify_locations(pki.trusted_file)
    context.load_cert_chain(pki.directory / "server.pem", pki.directory / "server.key")
    return context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "localhost") -> str:
    """'OK', or why one of the two refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=host)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    pending = [one, two]
    for _ in range(10):
        for side in tuple(pending):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return error.reason or str(error)
            pending.remove(side)
        if not pending:
            return "OK"
    return "no end"
