"""The committed code of the wire is what the .proto files give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "node" / "keycache" / "v1"


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.suffix in {".py", ".pyi"}}


def test_running_proto_generate_gives_exactly_the_committed_files(tmp_path: Path) -> None:
    subprocess.run(
        ["sh", ROOT / "proto" / "generate", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        stdin=subprocess.DEVNULL,
    )

    fresh, committed = texts(tmp_path / "keycache" / "v1"), texts(COMMITTED)
    committed.pop("__init__.py")
    assert set(fresh) == set(committed), "run proto/generate and commit what it writes"
    assert [name for name in sorted(fresh) if fresh[name] != committed[name]] == [], (
        "run proto/generate and commit what it writes"
    )


def test_every_proto_file_has_its_generated_module() -> None:
    wanted = {f"{path.stem}_pb2.py" for path in (ROOT / "proto" / "keycache" / "v1").glob("*.proto")}

    assert {path.name for path in COMMITTED.glob("*_pb2.py")} == wanted
