"""One path judged by RFC 5280 section 6, with revocation lists (6.3), through pyhanko-certvalidator. Nothing is fetched.

The library's coroutines wait for nothing here, since there is nothing to fetch; they are run to their end by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from pyhanko_certvalidator import PKIXValidationParams, ValidationContext
from pyhanko_certvalidator.authority import CertTrustAnchor, TrustQualifiers
from pyhanko_certvalidator.errors import (
    CRLValidationError,
    DisallowedAlgorithmError,
    PathValidationError,
    RevokedError,
)
from pyhanko_certvalidator.name_trees import (
    default_excluded_subtrees,
    default_permitted_subtrees,
    process_general_subtrees,
)
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import (
    NO_REVOCATION,
    CertRevTrustPolicy,
    FreshnessReqType,
    RevocationCheckingPolicy,
    RevocationCheckingRule,
)
from pyhanko_certvalidator.registry import SimpleTrustManager
from pyhanko_certvalidator.revinfo.validate_crl import verify_crl
from pyhanko_certvalidator.validate import async_validate_path

from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.x509 import Certificate
from keycache.harvest.x509_chains import Pool
from keycache.harvest.x509_names import name_key, printable

_PREFIX = "The path could not be validated because "
_T = TypeVar("_T")
_ANY_AGE = CertRevTrustPolicy(
    NO_REVOCATION, freshness=timedelta(days=36_500), freshness_req_type=FreshnessReqType.MAX_DIFF_REVOCATION_VALIDATION
)
_IN_FORCE = CertRevTrustPolicy(
    RevocationCheckingPolicy(RevocationCheckingRule.CRL_REQUIRED, RevocationCheckingRule.CRL_REQUIRED)
)


class Revocation(Enum):
    """WHERE_KNOWN: what a revocation list names is refused, even if the list is old; a missing list is no obstacle.

    REQUIRED: every certificate of the path needs a list in force that does not name it.
    """

    WHERE_KNOWN = "WHERE_KNOWN"
    REQUIRED = "REQUIRED"


class FailureKind(Enum):
    INVALID = "INVALID"
    WEAK = "WEAK"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a path is no good. REVOKED: the leaf itself is. `suspended`: only for a time (certificateHold)."""

    kind: FailureKind
    reason: str
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class _List:
    fast: x509.CertificateRevocationList
    whole: asn1_crl.CertificateList
    issuer: bytes
    indirect: bool


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists of a TrustBase, read once. `unreadable`: SHA-256 of those that could not be."""

    mode: Revocation
    lists: tuple[_List, ...] = ()
    unreadable: tuple[str, ...] = field(default=())

    @classmethod
    def load(cls, ders: Iterable[bytes], mode: Revocation) -> RevocationLists:
        lists: list[_List] = []
        unreadable: list[str] = []
        for der in ders:
            try:
                fast = x509.load_der_x509_crl(der)
                whole = asn1_crl.CertificateList.load(der, strict=True)
                lists.append(_List(fast, whole, name_key(fast.issuer.public_bytes()), _is_indirect(fast)))
            except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, Unacceptable):
                unreadable.append(hashlib.sha256(der).hexdigest())
        return cls(mode, tuple(lists), tuple(unreadable))

    def listing(self, path: Sequence[Certificate]) -> tuple[_List, ...]:
        """Those that may say that one of the certificates is revoked, with all others of their issuers (deltas).

        Looking for the serial numbers first spares the slow reader the lists that say nothing of them.
        """
        issuers = {one.issuer for one in self.lists if any(_may_list(one, certificate) for certificate in path[:-1])}
        return tuple(one for one in self.lists if one.issuer in issuers)

    def about(self, path: Sequence[Certificate], signers: Sequence[Pool]) -> tuple[_List, ...]:
        """Those that could say anything of the path, or of the keys that sign such lists."""
        names = {certificate.issuer_key for certificate in path}
        names.update(name for certificate in path for name in _list_issuers(certificate))
        names.update(one.issuer_key for name in sorted(names) for pool in signers for one in pool.of_subject(name))
        return tuple(one for one in self.lists if one.issuer in names)


def _list_issuers(certificate: Certificate) -> Iterator[bytes]:
    """Who else signs lists for its issuer: cRLIssuer of the distribution points (RFC 5280 4.2.1.13)."""
    for extension in certificate.parsed.extensions:
        if isinstance(extension.value, x509.CRLDistributionPoints):
            for point in extension.value:
                for name in point.crl_issuer or ():
                    if isinstance(name, x509.DirectoryName):
                        yield name_key(name.value.public_bytes())


def _is_indirect(revocations: x509.CertificateRevocationList) -> bool:
    """Whether it also lists certificates of other issuers than its own (RFC 5280 5.2.5)."""
    return any(
        isinstance(extension.value, x509.IssuingDistributionPoint) and extension.value.indirect_crl
        for extension in revocations.extensions
    )


def _may_list(one: _List, certificate: Certificate) -> bool:
    """The quick reader knows no serial numbers below zero (PKITS 4.1.15 has one): then the slow one looks at the issuer's lists."""
    if one.issuer != certificate.issuer_key and not one.indirect:
        return False
    return certificate.serial < 0 or one.fast.get_revoked_certificate_by_serial_number(certificate.serial) is not None


def validate(path: Sequence[Certificate], lists: RevocationLists, signers: Sequence[Pool], now: datetime) -> Failure | None:
    """What is wrong with a path at `now`, or None. `path`: leaf first, anchor last. `signers`: where keys that sign lists are found."""
    required = lists.mode is Revocation.REQUIRED
    try:
        used = lists.about(path, signers) if required else lists.listing(path)
        leaf, *between = (_asn1(certificate.der) for certificate in path[:-1])
        anchor = _anchor(path[-1])
        context = ValidationContext(
            trust_manager=SimpleTrustManager.build([anchor]),
            other_certs=[leaf, *between, *(_asn1(one.der) for one in _list_signers(used, signers))],
            moment=now,
            crls=[one.whole for one in used],
            revinfo_policy=_IN_FORCE if required else _ANY_AGE,
            time_tolerance=timedelta(0),
        )
        chosen = ValidationPath(anchor, list(reversed(between)), leaf)
        _run(async_validate_path(context, chosen, PKIXValidationParams()))
        return None if required or not used else _listed(context, chosen, (*reversed(between), leaf))
    except RevokedError as error:
        return _revoked(error, of_leaf=error.is_ee_cert and not error.is_side_validation)
    except DisallowedAlgorithmError as error:
        return Failure(FailureKind.WEAK, _sentence(error))
    except PathValidationError as error:
        return Failure(FailureKind.INVALID, _sentence(error))
    except Exception as error:  # noqa: BLE001 - the readers under us raise nearly anything on malformed input; the verdict is one
        return Failure(FailureKind.INVALID, f"The chain cannot be read ({type(error).__name__}).")


def _listed(context: ValidationContext, path: ValidationPath, certificates: Iterable[asn1_x509.Certificate]) -> Failure | None:
    """The failure, if a list that can be believed names one of the certificates. Lists that cannot be, say nothing."""
    for certificate in certificates:
        try:
            _run(verify_crl(certificate, path, context))
        except RevokedError as error:
            return _revoked(error, of_leaf=certificate is path.leaf)
        except CRLValidationError:
            continue
    return None


def _list_signers(lists: Iterable[_List], pools: Sequence[Pool]) -> list[Certificate]:
    """Certificates under the names that sign lists; an authority may use another key for them (RFC 5280 section 5)."""
    names = {one.issuer for one in lists}
    return [certificate for pool in pools for name in sorted(names) for certificate in pool.of_subject(name)]


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("path validation waited for something, although nothing may be fetched")


def _asn1(der: bytes) -> asn1_x509.Certificate:
    """Parsed anew each time: these objects remember what was read of them, and may then encode themselves differently."""
    return asn1_x509.Certificate.load(der, strict=True)


def _anchor(certificate: Certificate) -> CertTrustAnchor:
    """An anchor whose own validity, path length and name constraints count, as RFC 5937 advises."""
    parsed = _asn1(certificate.der)
    length = parsed.max_path_length
    return CertTrustAnchor(
        parsed,
        TrustQualifiers(
            standard_parameters=_constraints(parsed),
            max_path_length=length,
            max_aa_path_length=length,
            valid_from=certificate.not_before,
            valid_until=certificate.not_after,
        ),
    )


def _constraints(parsed: asn1_x509.Certificate) -> PKIXValidationParams | None:
    constraints = parsed.name_constraints_value
    if constraints is None:
        return None
    permitted, excluded = constraints["permitted_subtrees"], constraints["excluded_subtrees"]
    return PKIXValidationParams(
        initial_permitted_subtrees={
            **default_permitted_subtrees(),
            **(process_general_subtrees(permitted) if isinstance(permitted, asn1_x509.GeneralSubtrees) else {}),
        },
        initial_excluded_subtrees={
            **default_excluded_subtrees(),
            **(process_general_subtrees(excluded) if isinstance(excluded, asn1_x509.GeneralSubtrees) else {}),
        },
    )


def _revoked(error: RevokedError, *, of_leaf: bool) -> Failure:
    reason = f"{error.reason.human_friendly} on {error.revocation_dt:%Y-%m-%d}"
    if not of_leaf:
        return Failure(FailureKind.INVALID, f"The certificate of an authority in the chain is revoked ({reason}).")
    text = f"The issuer revoked the certificate ({reason})."
    return Failure(FailureKind.REVOKED, text, suspended=error.reason.native == "certificate_hold")


def _sentence(error: PathValidationError) -> str:
    text = printable(str(error)).removeprefix(_PREFIX).strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
