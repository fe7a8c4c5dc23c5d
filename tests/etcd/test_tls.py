"""Certificates that do not fit: each says at which endpoint, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.log_words import committed, put, state_of
from keycache.domain.errors import ConfigError, LogUnavailable
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls, target_of
from support.etcd import EtcdCluster, TlsFiles, shared_etcd, tls_files
from support.etcd_log import founded, opened, tls_of


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return tls_files(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return tls_files(tmp_path_factory.mktemp("theirs"), root="Another Root")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, ours: TlsFiles) -> Iterator[EtcdCluster]:
    with EtcdCluster.run(tmp_path_factory.mktemp("etcd"), tls=ours) as cluster:
        yield cluster


async def refused(endpoint: str, tls: EtcdTls | None) -> LogUnavailable:
    async with opened([endpoint], tls=tls) as log:
        with pytest.raises(LogUnavailable) as caught:
            await log.survey()
    assert f"etcd at {endpoint} " in caught.value.text
    return caught.value


async def test_with_its_certificates_it_reads_and_writes(etcd: EtcdCluster, ours: TlsFiles) -> None:
    async with founded(etcd.endpoints, tls=tls_of(ours)) as log:
        revision = await committed(log, put(a=b"1"))
        assert await state_of(log) == {"a": (b"1", revision)}


async def test_a_server_of_another_authority_is_not_believed(etcd: EtcdCluster, ours: TlsFiles, theirs: TlsFiles) -> None:
    error = await refused(etcd.endpoints[0], tls_of(ours, authority=theirs))
    assert "does not come from the authority this node was given" in error.text
    assert "--trusted-ca-file" in error.hint


@pytest.mark.parametrize("has_one", [False, True])
async def test_a_client_without_a_certificate_that_etcd_trusts_is_told_so(
    etcd: EtcdCluster, ours: TlsFiles, theirs: TlsFiles, has_one: bool
) -> None:
    error = await refused(etcd.endpoints[0], tls_of(theirs, authority=ours, client=has_one))
    assert "does not accept this node's client certificate, or got none" in error.text
    assert "client certificate" in error.hint


async def test_plain_where_tls_is_expected_is_told_so(etcd: EtcdCluster) -> None:
    error = await refused(etcd.endpoints[0].replace("https:", "http:"), None)
    assert "it may expect TLS" in error.text
    assert "https://" in error.hint


async def test_tls_where_there_is_none_is_told_so(ours: TlsFiles) -> None:
    error = await refused(shared_etcd().endpoints[0].replace("http:", "https:"), tls_of(ours))
    assert "does not speak TLS" in error.text


async def test_a_certificate_for_another_address_is_told_so(tmp_path: Path) -> None:
    files = tls_files(tmp_path / "tls", address="192.0.2.1")
    with EtcdCluster.run(tmp_path, tls=files) as etcd:
        error = await refused(etcd.endpoints[0], tls_of(files))
        assert "shows a certificate for another name or address" in error.text
        assert "as the certificate has it" in error.hint


async def test_one_endpoint_with_a_wrong_certificate_does_not_keep_from_the_others(etcd: EtcdCluster, ours: TlsFiles) -> None:
    plain = shared_etcd().endpoints[0].replace("http:", "https:")
    async with founded([plain, *etcd.endpoints], tls=tls_of(ours)) as log:
        await committed(log, put(a=b"1"))


def test_a_key_is_not_printed(ours: TlsFiles) -> None:
    assert "PRIVATE" in tls_of(ours).key.decode()
    assert "PRIVATE" not in repr(tls_of(ours))


@pytest.mark.parametrize("url", ["", "etcd:2379", "http://etcd", "ftp://etcd:2379", "http://etcd:99999", "http://etcd:2379/v3"])
def test_an_endpoint_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        EtcdClient([url])
    with pytest.raises(ConfigError):
        EtcdClient([])


def test_an_endpoint_is_a_host_and_a_port() -> None:
    assert [target_of(url) for url in ("https://etcd-1.example:2379", "http://[::1]:2379/")] == [
        "etcd-1.example:2379",
        "[::1]:2379",
    ]
