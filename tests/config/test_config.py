"""The configuration: what may be said where, and what is told of mistakes."""

from datetime import timedelta
from pathlib import Path

import pytest

from keycache import config
from keycache.config import Endpoint
from keycache.domain.errors import ConfigError
from keycache.domain.examination import DirectionPolicy
from keycache.domain.names import Domain


def load(tmp_path: Path, text: str = "", **environ: str) -> config.Config:
    (tmp_path / "keycache.toml").write_text(text)
    return config.load(data_dir=tmp_path, file=None, environ=environ)


def mistakes(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.text.replace(str(tmp_path), "DIR")


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    loaded = config.load(data_dir=tmp_path, file=None, environ={})
    assert loaded.data_dir == tmp_path
    assert (loaded.listen.grpc, loaded.listen.metrics) == (Endpoint("127.0.0.1", 7640), Endpoint("127.0.0.1", 7641))
    assert loaded.listen.join == Endpoint("127.0.0.1", 7642)
    assert loaded.mail.message_limit == 25 * 1024 * 1024
    assert loaded.trust.anchor_paths == (Path("/etc/ssl/certs/ca-certificates.crt"),)
    assert loaded.direction_policy == DirectionPolicy()
    assert loaded.purge.interval == timedelta(minutes=5)
    assert (loaded.cluster.name, loaded.cluster.endpoints, loaded.cluster.quota) == ("keycache", (), 0)


def test_every_setting_can_be_said_in_the_file(tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    pem = anchors / "a.pem"
    pem.touch()
    loaded = load(
        tmp_path,
        f"""
        [listen]
        grpc = "[::]:0"
        metrics = "off"
        join = "off"
        names = ["cache.example.org", "10.0.0.7"]
        [mail]
        managed_domains = ["Example.ORG", "bücher.example"]
        inbound_listeners = ["10.0.0.1:25", "10.0.0.2", "::1", "[::1]:25"]
        outbound_listeners = ["mx.example.org:587"]
        internal_networks = ["10.0.0.0/8", "2001:db8::/32"]
        message_limit = "10 MiB"
        [trust]
        anchors = ["{anchors}"]
        system_anchors = false
        crls = ["{anchors}"]
        [workers]
        count = 3
        memory_mb = 1024
        seconds = 7.5
        [log]
        level = "debug"
        format = "text"
        [purge]
        interval = "90s"
        [cluster]
        name = "mail-keys"
        endpoints = ["https://etcd1.example.org:2379", "https://[2001:db8::2]:2379/"]
        ca = "{pem}"
        certificate = "{pem}"
        key = "{pem}"
        quota = "8 GiB"
        address = "mx1.example.org:7640"
        """,
    )
    assert loaded == config.Config(
        data_dir=tmp_path,
        listen=config.Listen(grpc=Endpoint("::", 0), metrics=None, join=None, names=("cache.example.org", "10.0.0.7")),
        mail=config.Mail(
            managed_domains=(Domain("example.org"), Domain("xn--bcher-kva.example")),
            inbound_listeners=("10.0.0.1:25", "10.0.0.2", "::1", "[::1]:25"),
            outbound_listeners=("mx.example.org:587",),
            internal_networks=("10.0.0.0/8", "2001:db8::/32"),
            message_limit=10 * 1024 * 1024,
        ),
        trust=config.Trust(anchors=(anchors,), system_anchors=False, crls=(anchors,)),
        workers=config.Workers(count=3, memory_mb=1024, seconds=7.5),
        log=config.Log(level="debug", format="text"),
        purge=config.Purge(interval=timedelta(seconds=90)),
        cluster=config.Cluster(
            name="mail-keys",
            endpoints=("https://etcd1.example.org:2379", "https://[2001:db8::2]:2379"),
            ca=pem,
            certificate=pem,
            key=pem,
            quota=8 * 2**30,
            address=Endpoint("mx1.example.org", 7640),
        ),
    )
    assert loaded.trust.anchor_paths == (anchors,)
    assert loaded.workers.processes == 3


def test_the_environment_overrules_the_file_and_lists_are_comma_separated(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        '[listen]\ngrpc = "127.0.0.1:1"\n[mail]\nmanaged_domains = ["old.example"]\nmessage_limit = 100000\n',
        KEYCACHE_LISTEN__GRPC="127.0.0.1:0",
        KEYCACHE_MAIL__MANAGED_DOMAINS="a.example, B.example",
        KEYCACHE_TRUST__SYSTEM_ANCHORS="no",
        KEYCACHE_WORKERS__COUNT="2",
        KEYCACHE_CLUSTER__ENDPOINTS="http://10.0.0.1:2379, http://10.0.0.2:2379",
    )
    assert loaded.cluster.endpoints == ("http://10.0.0.1:2379", "http://10.0.0.2:2379")
    assert loaded.listen.grpc == Endpoint("127.0.0.1", 0)
    assert loaded.direction_policy == DirectionPolicy(managed_domains=(Domain("a.example"), Domain("b.example")))
    assert loaded.mail.message_limit == 100_000
    assert (loaded.trust.system_anchors, loaded.workers.count) == (False, 2)


def test_the_file_can_be_named_by_argument_or_environment(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[log]\nlevel = "error"\n')
    assert config.load(data_dir=tmp_path, file=other, environ={}).log.level == "error"
    assert config.load(data_dir=tmp_path, file=None, environ={"KEYCACHE_CONFIG": str(other)}).log.level == "error"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(data_dir=tmp_path, file=tmp_path / "missing.toml", environ={})


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "keycache.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(data_dir=tmp_path, file=None, environ={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(data_dir=tmp_path, file=tmp_path, environ={})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[listen\n", "is not TOML"),
        ('[listen]\ngrcp = "x"', "listen.grcp in DIR/keycache.toml is not a setting; did you mean grpc."),
        ('grpc = "x"', "grpc in DIR/keycache.toml is not a setting; did you mean listen.grpc."),
        ("[worker]\ncount = 1", "worker in DIR/keycache.toml is not a setting; did you mean workers."),
        ('[timeouts]\nharvested = "3d"', "see 'keycache settings set'"),
        ('data_dir = "/x"', "say --data-dir or KEYCACHE_DATA_DIR"),
        ('listen = "x"', "listen in DIR/keycache.toml must be a section"),
        (
            '[listen]\ngrpc = "127.0.0.1"',
            "listen.grpc in DIR/keycache.toml: '127.0.0.1' is not host:port; write it as 127.0.0.1:7640",
        ),
        ('[listen]\ngrpc = "h:65536"', "port 0 to 65535"),
        ('[listen]\ngrpc = "::1:7640"', "in brackets"),
        ("[listen]\ngrpc = 7640", "allowed: host:port"),
        ('[listen]\nnames = ["a b"]', "listen.names[0] in DIR/keycache.toml: 'a b' is neither"),
        (
            '[mail]\nmanaged_domains = ["ok.example", "a b"]',
            "mail.managed_domains[1] in DIR/keycache.toml: 'a b' is not a domain name",
        ),
        ('[mail]\ninternal_networks = ["10.0.0.1/8"]', "has host bits set"),
        ('[mail]\ninbound_listeners = ["x:y"]', "allowed: a list of address[:port]"),
        ('[mail]\nmessage_limit = "1 KiB"', "allowed: 64 KiB to 512 MiB"),
        ('[mail]\nmessage_limit = "much"', "'much' is not a size"),
        ('[trust]\nanchors = ["/no/such"]', "/no/such does not exist"),
        ('[trust]\ncrls = ["relative.crl"]', "write the whole path"),
        ("[workers]\ncount = 100", "allowed: 0 to 64"),
        ('[log]\nlevel = "loud"', "allowed: debug, info, warning or error"),
        ('[purge]\ninterval = "2d"', "2d is out of range; choose between 1s and 24h"),
        ('[cluster]\nname = "Mail Keys"', "'Mail Keys' is not a cluster's name; write 1 to 64 of a-z, 0-9 and -"),
        (
            '[cluster]\nendpoints = ["etcd1:2379"]',
            "'etcd1:2379' is not an endpoint of etcd; write it as https://etcd1.example.org:",
        ),
        ('[cluster]\nendpoints = ["http://etcd1"]', "'etcd1' is not host:port"),
        ('[cluster]\nendpoints = ["http://a:1/prefix"]', "is not an endpoint of etcd"),
        (
            '[cluster]\nendpoints = ["http://a:1", "https://b:1"]',
            "cluster in DIR/keycache.toml: some endpoints are http and some",
        ),
        ('[cluster]\nendpoints = ["https://a:1"]', "https endpoints need ca"),
        ('[cluster]\nca = "/no/such"', "/no/such does not exist; allowed: an existing file"),
        ('[cluster]\nca = "/"', "/ is no file"),
        ('[cluster]\nendpoints = ["http://a:1"]\nca = "DIR/keycache.toml"', "ca, certificate and key are for https"),
        ('[cluster]\ncertificate = "DIR/keycache.toml"', "certificate and key belong together"),
        ('[cluster]\nquota = "1 MiB"', "allowed: 16 MiB to 100 GiB"),
        ('[cluster]\naddress = "h:0"', "'h:0' names no port under which others could reach it"),
        ('[purge]\ninterval = "5"', "'5' is not a span of time (write a number with a unit"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(tmp_path: Path, text: str, told: str) -> None:
    assert told in mistakes(tmp_path, text.replace('"DIR', f'"{tmp_path}'))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = mistakes(tmp_path, '[log]\nlevel = "loud"\nformat = "xml"\n', KEYCACHE_LISTEN__GRPC="x")
    assert text.startswith("The configuration has 3 mistakes:\n  listen.grpc in KEYCACHE_LISTEN__GRPC in the environment: 'x'")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("KEYCACHE_LISTEN__GRCP", "did you mean KEYCACHE_LISTEN__GRPC"),
        ("KEYCACHE_LISTEN_GRPC", "did you mean KEYCACHE_LISTEN__GRPC"),
    ],
)
def test_a_misspelt_variable_is_a_mistake(tmp_path: Path, name: str, told: str) -> None:
    assert told in mistakes(tmp_path, "", **{name: "x"})


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    """What Kubernetes sets for a service called keycache, and our own others."""
    load(
        tmp_path, "", KEYCACHE_PORT_7640_TCP_ADDR="10.0.0.1", KEYCACHE_SERVICE_HOST="10.0.0.1", KEYCACHE_DATA_DIR="/x", HOME="/"
    )


def test_an_endpoint_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:7640", "[::1]:0", "cache.example.org:65535"):
        assert str(Endpoint.parse(text)) == text
