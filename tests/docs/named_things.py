"""Everything that has a name a user meets, collected from the code itself: who adds one must tell of it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from typing import TypeVar

from docs.checkout import ROOT
from keycache import config, harvest
from keycache.domain.lookup import MissCode
from keycache.domain.settings import Settings, Timeouts
from keycache.domain.verdict import Verdict
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2, join_pb2

SOURCES = ROOT / "node" / "keycache"


def verdicts() -> list[str]:
    return [verdict.value for verdict in Verdict]


def miss_codes() -> list[str]:
    """Of a lookup; the wire has some that only a batch can give."""
    on_the_wire = [value.name.removeprefix("MISS_CODE_") for value in cache_pb2.MissCode.DESCRIPTOR.values]
    return list(dict.fromkeys([*(code.value for code in MissCode), *on_the_wire[1:]]))


def settings() -> list[str]:
    """Of the cluster, as `settings set` takes them."""
    own = [field.name for field in dataclasses.fields(Settings) if field.name not in {"timeouts", "extra"}]
    return [field.name for field in dataclasses.fields(Timeouts)] + own


def config_fields() -> list[str]:
    """Of the configuration file: section.name."""
    sections = {
        name: field.annotation
        for name, field in config.Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, config.BaseModel)
    }
    return [f"{section}.{name}" for section, model in sections.items() for name in model.model_fields]


def calls() -> list[str]:
    """Service.Method."""
    files = (cache_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR, cluster_pb2.DESCRIPTOR, join_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    return [f"{service.name}.{method.name}" for service in services for method in service.methods]


def commands() -> list[str]:
    """With their groups, such as `issuers approve`."""
    import typer.main

    from keycache.cli import program

    def below(command: object, path: tuple[str, ...]) -> Iterator[str]:
        children = getattr(command, "commands", None)
        if children is None:
            yield " ".join(path)
            return
        for name, child in children.items():
            if not child.hidden:
                yield from below(child, (*path, name))

    return list(below(typer.main.get_command(program.build()), ()))


def metrics() -> list[str]:
    from keycache.metrics.registry import METRICS

    return list(METRICS)


def gates() -> list[str]:
    """The names of all gates: those of Gates that are made by name, and of the tables called GATES."""
    found: set[str] = set()
    for call in _nodes(ast.Call):
        if isinstance(call.func, ast.Name) and call.func.id == "Gate":
            found.update(
                word.value.value for word in call.keywords if word.arg == "name" and isinstance(word.value, ast.Constant)
            )
    for module in pkgutil.iter_modules(harvest.__path__, "keycache.harvest."):
        tables = {name: value for name, value in vars(importlib.import_module(module.name)).items() if name.endswith("GATES")}
        found.update(name for table in tables.values() for name in table)
    return sorted(found)


N = TypeVar("N", bound=ast.AST)


def _nodes(kind: type[N]) -> Iterator[N]:
    for path in sorted(SOURCES.rglob("*.py")):
        if "v1" not in path.relative_to(SOURCES).parts:
            yield from (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kind))
