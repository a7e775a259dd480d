"""Authenticate: Bundle → AuthenticBundle, or one typed error that says why not.

``assess`` finds out everything and raises nothing, for people who want to look; ``authenticate`` acts on the same
verdict. An AuthenticBundle has no other maker, so code that takes one cannot be reached without.

Two kinds of defect: a *problem* (a false or malformed signature, a revoked bundle, rollback) is final; a *shortfall*
(too few signatures that count) may be overridden by ``allow_unsigned``, which the command line spells
--insecure-unsigned.
"""

import shlex
from dataclasses import InitVar, dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from .container import Bundle
from .errors import KeyFileError, RevokedError, RollbackError, SignatureError, TrustError, UxdpError
from .keys import PublicKey
from .rollback import RollbackState
from .signature import PAYLOAD_TYPE, Signature, check_claim, pae, parse_envelopes, statement
from .trust import DEFAULT_ROLE, NATIVE_ROLE, TrustStore

_MAKER: Final = object()


class SignatureState(Enum):
    """What became of one signature."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    OUT_OF_SCOPE = "out-of-scope"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key whose signature counts, in one role, and the file that says so."""

    key: PublicKey
    role: str
    source: str


@dataclass(frozen=True, slots=True)
class SignatureVerdict:
    """One signature: whose it is, whether it counts, and why."""

    context: str
    key: PublicKey | None
    state: SignatureState
    reason: str
    signers: tuple[Signer, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """How many different keys of a role are needed, and how many signed."""

    role: str
    threshold: int
    counted: int


@dataclass(frozen=True, slots=True)
class TrustVerdict:
    """Everything there is to say about whether a bundle is trusted."""

    signatures: tuple[SignatureVerdict, ...]
    requirements: tuple[Requirement, ...]
    problems: tuple[UxdpError, ...]
    shortfall: TrustError | None

    @property
    def error(self) -> UxdpError | None:
        """The reason for which ``authenticate`` refuses the bundle, or None if it is trusted."""
        return self.problems[0] if self.problems else self.shortfall

    @property
    def trusted(self) -> bool:
        """Whether ``authenticate`` accepts the bundle."""
        return self.error is None

    @property
    def signers(self) -> tuple[Signer, ...]:
        """The keys that count, each once per role."""
        return tuple(signer for signature in self.signatures for signer in signature.signers)


@dataclass(frozen=True, eq=False)
class AuthenticBundle:
    """A bundle whose signatures satisfy the trust of this process's user; made by ``authenticate`` alone.

    ``insecure`` tells that they do not, and that the user said to go on all the same. The bundle is borrowed: who
    opened it closes it.
    """

    bundle: Bundle
    signers: tuple[Signer, ...]
    insecure: bool
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("an AuthenticBundle is made by authenticate() alone")

    def __init_subclass__(cls) -> None:
        raise TypeError("AuthenticBundle cannot be derived from")

    @property
    def allows_native(self) -> bool:
        """Whether native code that the bundle carries may run here: one of its signers is trusted for that."""
        return not self.insecure and any(signer.role == NATIVE_ROLE for signer in self.signers)

    def record_use(self, rollback: RollbackState) -> bool:
        """Record that this bundle was used successfully, so that an older one will be refused; return whether it was.

        An insecure bundle is not recorded: its security_version is only what somebody claims.

        :raises KeyFileError: the state cannot be read or written
        """
        if self.insecure:
            return False
        manifest = self.bundle.manifest
        rollback.record(manifest.name, manifest.security_version)
        return True


def authenticate(
    bundle: Bundle, trust: TrustStore, *, now: datetime, rollback: RollbackState, allow_unsigned: bool = False
) -> AuthenticBundle:
    """Require that a bundle is signed by whom ``trust`` demands, not revoked, and not older than what was used.

    Nothing is recorded: see ``AuthenticBundle.record_use``.

    :param now: the time, with time zone, at which keys must be valid
    :param allow_unsigned: accept too few signatures that count; malformed or false ones, revocation of the bundle and
        rollback remain errors
    :raises SignatureError: a signature is malformed, false or of another bundle
    :raises RevokedError: the bundle is revoked, or all keys that signed it
    :raises RollbackError: a bundle of this name with a higher security_version was used
    :raises TrustError: there are too few signatures that count
    :raises KeyFileError: the rollback state cannot be read
    """
    verdict = assess(bundle, trust, now=now, rollback=rollback)
    if verdict.problems:
        raise verdict.problems[0]
    if verdict.shortfall is not None and not allow_unsigned:
        raise verdict.shortfall
    return AuthenticBundle(bundle, verdict.signers, verdict.shortfall is not None, _MAKER)


def assess(bundle: Bundle, trust: TrustStore, *, now: datetime, rollback: RollbackState) -> TrustVerdict:
    """Find out whether a bundle is trusted and what became of each of its signatures; never refuses anything."""
    if now.tzinfo is None:
        raise ValueError("now: a time without time zone")
    manifest = bundle.manifest
    problems: list[UxdpError] = []
    verdicts: list[SignatureVerdict] = []
    try:
        signatures = parse_envelopes(bundle.signatures, bundle.bundle_id, manifest.name)
    except SignatureError as error:
        problems.append(error)
        verdicts.append(SignatureVerdict(error.context, None, SignatureState.INVALID, error.message))
        signatures = ()
    message = pae(PAYLOAD_TYPE, statement(bundle.bundle_id, manifest.name))
    seen: set[PublicKey] = set()
    for signature in signatures:
        try:
            check_claim(signature, message)
        except SignatureError as error:
            problems.append(error)
            verdicts.append(
                SignatureVerdict(signature.context, signature.claimed, SignatureState.INVALID, error.message)
            )
            continue
        verdicts.append(_judge(signature, _signer_of(signature, message, trust), trust, manifest.name, now, seen))
    if bundle.bundle_id in trust.revocations.bundles:
        problems.append(
            RevokedError(
                f"bundle {bundle.bundle_id} is revoked by {trust.revocations.bundles[bundle.bundle_id]}",
                context=bundle.path,
                remedy="get a newer one from its publisher",
            )
        )
    try:
        rollback.check(manifest.name, manifest.security_version)
    except (RollbackError, KeyFileError) as error:
        problems.append(error)
    requirements = _requirements(verdicts, trust, manifest.name)
    shortfall = None
    if any(requirement.counted < requirement.threshold for requirement in requirements):
        shortfall = _shortfall(bundle, verdicts, requirements)
    return TrustVerdict(tuple(verdicts), requirements, tuple(problems), shortfall)


def _signer_of(signature: Signature, message: bytes, trust: TrustStore) -> PublicKey | None:
    """Return the key under which a signature verifies, among those that it claims, that are trusted or revoked."""
    if signature.claimed is not None:
        return signature.claimed  # verified by check_claim
    candidates = {entry.key for entry in trust.keys} | trust.revocations.keys.keys()
    for key in sorted(candidates):
        if key.is_signature(signature.value, message):
            return key
    return None


def _judge(
    signature: Signature, key: PublicKey | None, trust: TrustStore, name: str, now: datetime, seen: set[PublicKey]
) -> SignatureVerdict:
    """Decide whether a signature that verifies under ``key`` counts; ``seen`` are the keys that came before."""

    def verdict(state: SignatureState, reason: str, signers: tuple[Signer, ...] = ()) -> SignatureVerdict:
        return SignatureVerdict(signature.context, key, state, reason, signers)

    if key is None:
        hint = f" with keyid {signature.keyid!r}" if signature.keyid else ""
        return verdict(SignatureState.UNKNOWN, f"a signature{hint} is of no trusted key")
    if key in seen:
        return verdict(SignatureState.DUPLICATE, f"{key} signed twice and counts once")
    seen.add(key)
    if key in trust.revocations.keys:
        return verdict(SignatureState.REVOKED, f"{key} is revoked by {trust.revocations.keys[key]}")
    entries = [entry for entry in trust.keys if entry.key == key]
    if not entries:
        return verdict(SignatureState.UNKNOWN, f"{key} is not a trusted key")
    in_scope = [entry for entry in entries if entry.matches(name)]
    if not in_scope:
        globs = ", ".join(sorted({pattern for entry in entries for pattern in entry.names}))
        return verdict(SignatureState.OUT_OF_SCOPE, f"{key} is trusted for other names ({globs})")
    signers: dict[str, Signer] = {}
    invalid = []
    for entry in in_scope:
        if entry.not_before is not None and now < entry.not_before:
            when = f"not valid before {entry.not_before.isoformat()} in {entry.source}"
            invalid.append((SignatureState.NOT_YET_VALID, f"{key} is {when}"))
        elif entry.not_after is not None and now > entry.not_after:
            when = f"expired since {entry.not_after.isoformat()} in {entry.source}"
            invalid.append((SignatureState.EXPIRED, f"{key} is {when}"))
        else:
            signers.setdefault(entry.role, Signer(key, entry.role, entry.source))
    if not signers:
        return verdict(*invalid[0])
    where = ", ".join(f"{signer.role} by {signer.source}" for signer in signers.values())
    return verdict(SignatureState.COUNTED, f"{key} is trusted as {where}", tuple(signers.values()))


def _requirements(verdicts: list[SignatureVerdict], trust: TrustStore, name: str) -> tuple[Requirement, ...]:
    signers = [signer for verdict in verdicts for signer in verdict.signers]
    return tuple(
        Requirement(role, threshold, len({signer.key for signer in signers if signer.role == role}))
        for role, threshold in sorted(trust.requirements(name).items())
    )


def _shortfall(bundle: Bundle, verdicts: list[SignatureVerdict], requirements: tuple[Requirement, ...]) -> TrustError:
    """Say which signatures are missing, why each that is there does not count, and what to do about it."""
    name = bundle.manifest.name
    unmet = [requirement for requirement in requirements if requirement.counted < requirement.threshold]
    needs = " and ".join(
        f"{r.threshold} {r.role} signature{'s' if r.threshold > 1 else ''} (has {r.counted})" for r in unmet
    )
    reasons = "; ".join(verdict.reason for verdict in verdicts) or "it is not signed"
    revoked = bool(verdicts) and all(verdict.state is SignatureState.REVOKED for verdict in verdicts)
    return (RevokedError if revoked else TrustError)(
        f"{name!r} needs {needs}: {reasons}",
        context=bundle.path,
        remedy=_remedy(bundle, verdicts, unmet[0].role),
    )


def _remedy(bundle: Bundle, verdicts: list[SignatureVerdict], role: str) -> str:
    states = {verdict.state for verdict in verdicts}
    strangers = [
        verdict.key
        for verdict in verdicts
        if verdict.key is not None and verdict.state in (SignatureState.UNKNOWN, SignatureState.OUT_OF_SCOPE)
    ]
    if strangers:
        option = "" if role == DEFAULT_ROLE else f" --role {role}"
        # A bundle's name holds no character that a shell would read; see manifest.NAME_PATTERN.
        lines = [f"uxdp trust add {key} --names '{bundle.manifest.name}'{option}" for key in strangers]
        return "\n".join(["if you know this key to be its publisher's:", *lines])
    if SignatureState.NOT_YET_VALID in states:
        return "check this machine's clock, and not_before in the trust file"
    if SignatureState.EXPIRED in states:
        return "ask its publisher to sign it with a key that is valid, or extend not_after in the trust file"
    if SignatureState.REVOKED in states:
        return "get one from its publisher that another key has signed"
    path = shlex.quote(bundle.path)
    if not verdicts:
        return f"sign it with `uxdp sign {path}`, or accept it as it is with --insecure-unsigned"
    return f"ask for another signature, which `uxdp sign --add {path}` makes"
