"""The bare thing beside a node's lookups: grpc.aio on uvloop, the same TLS, the same bytes back, and nothing else.

    python bare_server.py PKI_DIR ANSWERS

ANSWERS: method, request and answer as hex, one triple a line. Prints its port; ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import grpc
import uvloop


async def main() -> None:
    pki, answers_file = Path(sys.argv[1]), Path(sys.argv[2])
    answers: dict[str, dict[bytes, bytes]] = defaultdict(dict)
    for line in answers_file.read_text().splitlines():
        method, request, answer = line.split(" ")
        answers[method][bytes.fromhex(request)] = bytes.fromhex(answer)

    def handler(known: dict[bytes, bytes]) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(request: bytes, _context: object) -> bytes:
            return known[request]

        return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    handlers = {method: handler(known) for method, known in answers.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("keycache.v1.KeyCache", handlers)])
    credentials = grpc.ssl_server_credentials(
        [((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())],
        root_certificates=(pki / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1)


uvloop.run(main())
