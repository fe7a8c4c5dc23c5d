"""The service `KeyCache`: what mail processors call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc

from keycache.cache import KeyCache
from keycache.domain.errors import InvalidInput
from keycache.domain.lookup import DEFAULT_FILTER
from keycache.services import convert, wire
from keycache.services.auth import Caller
from keycache.services.calls import Calls, closing
from keycache.services.limits import ByteBudget
from keycache.v1 import cache_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["KeyCache"].full_name


class KeyCacheService:
    def __init__(self, cache: KeyCache, budget: ByteBudget) -> None:
        self._lookups = cache.lookups
        self._harvesting = cache.harvesting
        self._cache = cache
        self._budget = budget

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "Lookup": calls.unary(f"/{NAME}/Lookup", pb.LookupRequest, self.lookup),
            "BatchLookup": calls.unary(f"/{NAME}/BatchLookup", pb.BatchLookupRequest, self.batch_lookup),
            "Harvest": calls.unary(f"/{NAME}/Harvest", pb.HarvestRequest, self.harvest),
            "Explain": calls.unary(f"/{NAME}/Explain", pb.HarvestRequest, self.explain),
            "Put": calls.unary(f"/{NAME}/Put", pb.PutRequest, self.put),
            "Watch": calls.stream(f"/{NAME}/Watch", pb.WatchRequest, self.watch, endless=True),
        }

    # ORDER in both lookups: the revision is read BEFORE the rows, so that the answer is never older than it says.
    async def lookup(self, request: pb.LookupRequest, _caller: Caller) -> bytes:
        lookups, address = self._lookups, request.address
        if request.min_revision > lookups.revision:
            await lookups.reach(request.min_revision)
        accept = convert.lookup_filter(request.filter) if request.HasField("filter") else DEFAULT_FILTER
        revision = lookups.revision
        if bool(address) == bool(request.fingerprint):
            raise InvalidInput("A lookup needs either an address or a fingerprint.")
        answer = lookups.serve(address, accept) if address else lookups.by_fingerprint(request.fingerprint, accept)
        return wire.lookup_response(address, answer, revision=revision, log_age=lookups.log_age)

    async def batch_lookup(self, request: pb.BatchLookupRequest, _caller: Caller) -> bytes:
        lookups, addresses = self._lookups, list(request.addresses)
        if request.min_revision > lookups.revision:
            await lookups.reach(request.min_revision)
        accept = convert.lookup_filter(request.filter) if request.HasField("filter") else DEFAULT_FILTER
        revision = lookups.revision
        answers = lookups.serve_all(addresses, accept)
        return wire.batch_response(addresses, answers, revision=revision, log_age=lookups.log_age)

    async def harvest(self, request: pb.HarvestRequest, _caller: Caller) -> pb.HarvestResponse:
        with self._budget.hold(len(request.message)):
            result = await self._harvesting.harvest(request.message, convert.envelope(request.envelope))
        return convert.harvest_response(result)

    async def explain(self, request: pb.HarvestRequest, _caller: Caller) -> pb.HarvestResponse:
        with self._budget.hold(len(request.message)):
            result = await self._harvesting.explain(request.message, convert.envelope(request.envelope))
        return convert.harvest_response(result)

    async def put(self, request: pb.PutRequest, caller: Caller) -> pb.PutResponse:
        with self._budget.hold(len(request.material)):
            keys, revision = await self._harvesting.put(request.material, request.address, request.source or caller.name)
        return pb.PutResponse(keys=[convert.key_verdict(key) for key in keys], revision=revision)

    async def watch(self, _request: pb.WatchRequest, _caller: Caller) -> AsyncGenerator[pb.WatchEvent, None]:
        async with closing(self._cache.watch()) as changes:
            async for change in changes:
                yield convert.watch_event(change)
