"""A node's part in `test_an_etcd_dies_with_its_node`: runs one etcd on the loop that nodes use, prints its pid, waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from keycache import logs
from keycache.clock import SystemClock
from support.managed import make_spec, make_tls, running


async def main(folder: Path) -> None:
    files = make_tls(folder / "tls")
    async with running(make_spec(folder, "m0", files), files) as etcd:
        sys.stdout.write(f"{etcd.pid}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    logs.configure(form="json", level="error", now=SystemClock().now)
    uvloop.run(main(Path(sys.argv[1])))
