from __future__ import annotations

import pytest

from support.managed import NodeTls, make_tls


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> NodeTls:
    """Certificates of one authority: they are slow to make, and nobody changes them."""
    return make_tls(tmp_path_factory.mktemp("tls"))
