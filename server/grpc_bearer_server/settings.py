"""The service's settings as frozen models. `loading` reads them from a TOML file and the environment.

Descriptions are what `grpc-bearer settings` prints. Figures with a unit carry it in their name, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from grpc_bearer import (
    Access,
    CachePolicy,
    ClaimRule,
    ConfigurationError,
    FetchOptions,
    Issuer,
    Policy,
    Rule,
    Streams,
    VerdictCachePolicy,
)
from grpc_bearer.authenticator import DEFAULT_MAX_TOKEN_BYTES
from grpc_bearer.issuer import DEFAULT_ALGORITHMS
from grpc_bearer.keys.remote import is_loopback
from grpc_bearer.observe import Mode

ENV_PREFIX: Final = "GRPC_BEARER_"
ENV_DELIMITER: Final = "__"

_INT_MAX: Final = 2**31 - 1  # grpc takes no larger ones

_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})", re.ASCII)


def variable_of(location: Iterable[int | str]) -> str:
    """The environment variable of a setting, from the parts of its place in the file."""
    return ENV_PREFIX + ENV_DELIMITER.join(map(str, location)).upper()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: HOST:PORT, an IPv6 host in brackets. Port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: Any) -> Address:
        """Raises `ValueError` that says how an address is written."""
        match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
        if match is None or int(match["port"]) > 65_535:
            raise ValueError('is no address; write it as "127.0.0.1:50051" or "[::1]:50051"')
        return cls(match["v6"] or match["host"], int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine only."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: Any) -> Any:
    return value if isinstance(value, Address) else Address.parse(value)


def _loopback(value: Any) -> Any:
    address = _address(value)
    if not address.is_loopback:
        raise ValueError("is not on loopback; the embedded issuer gives a token to whoever asks, so it stays on 127.0.0.1")
    return address


def _list_of_text(value: Any) -> Any:
    """A list from the environment: its elements with commas between them."""
    return [element.strip() for element in value.split(",") if element.strip()] if isinstance(value, str) else value


_NUMBERED: Final = {
    "issuers": ("[[issuers]]", ("issuers", 0, "issuer")),
    "rules": ("[[rules]]", ("rules", 0, "methods")),
    "claims": ("[[rules.claims]]", ("rules", 0, "claims", 0, "name")),
}


def _by_index(value: Any, info: ValidationInfo) -> Any:
    """A list of tables from the environment: `..._0_...`, `..._1_...`, in that order."""
    if not isinstance(value, dict):
        return value
    if not all(index.isascii() and index.isdigit() for index in value):
        written, location = _NUMBERED[info.field_name or ""]
        raise ValueError(
            f"is a list: write {written} in the file, and number the elements in variables: {variable_of(location)}"
        )
    return [value[index] for index in sorted(value, key=int)]


def _known_fields(cls: type[Any]) -> Callable[[Any], Any]:
    names = [spec.name for spec in fields(cls)]

    def refuse_others(value: Any) -> Any:
        unknown = sorted(set(value) - set(names)) if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"has no setting {unknown[0]!r}; there are {', '.join(names)}")
        return value

    return refuse_others


def _as_settings(text: str) -> str:
    """The library's advice about its arguments as advice about ours."""
    for argument, setting in (("jwks_file, jwks or discovery_uri", "jwks_file or discovery"), ("discovery_uri", "discovery")):
        text = text.replace(argument, setting)
    return text.replace("=True", " = true")


Listen = Annotated[Address, BeforeValidator(_address)]
LoopbackListen = Annotated[Address, BeforeValidator(_loopback)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_list_of_text)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TlsSettings(_Table):
    """[server.tls]: PEM files."""

    cert: Path | None = Field(default=None, description="certificate chain, PEM; with it the service speaks TLS")
    key: Path | None = Field(default=None, description="private key of the certificate, PEM")
    client_ca: Path | None = Field(default=None, description="CA of the clients, PEM; with it clients need a certificate")

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or none")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca needs cert and key beside it")
        return self


class ServerSettings(_Table):
    """[server]"""

    listen: Listen = Field(default=Address("127.0.0.1", 50051), description="HOST:PORT to serve on; port 0 is any free one")
    allow_plaintext: bool = Field(default=False, description="serve without TLS on an address other than loopback")
    reflection: bool = Field(default=False, description="answer gRPC server reflection, without a token")
    public_methods: Texts = Field(default=(), description="further methods without a token: /package.Service/Method")
    mode: Mode = Field(default="enforce", description="enforce, or report: every call goes on, the log says what it would be")
    strict: bool = Field(default=False, description="each method served has to have a rule or an option in its proto")
    reveal_reasons: bool = Field(default=True, description="tell callers why they are refused, or the bare code")
    max_token_bytes: int = Field(default=DEFAULT_MAX_TOKEN_BYTES, ge=256, le=1 << 20, description="longer tokens are refused")
    drain_s: float = Field(default=10.0, ge=0, le=3600, description="how long calls may go on after SIGTERM")
    max_concurrent_rpcs: int = Field(
        default=10_000, ge=1, le=_INT_MAX, description="calls at the same time; more get RESOURCE_EXHAUSTED"
    )
    max_public_rpcs: int = Field(
        default=1000,
        ge=1,
        le=_INT_MAX,
        description="calls without a token to one method at the same time, a quarter from one host",
    )
    max_concurrent_streams: int = Field(default=100, ge=1, le=_INT_MAX, description="calls at the same time on one connection")
    max_connection_idle_s: Seconds = Field(default=300.0, description="a connection without a call is closed after this")
    max_connection_age_s: Seconds = Field(default=3600.0, description="and any connection after this, so that load spreads")
    max_connection_age_grace_s: Seconds = Field(default=300.0, description="how long its calls may go on then")
    keepalive_s: Seconds = Field(default=60.0, description="a silent connection's client is asked for a sign of life")
    keepalive_timeout_s: Seconds = Field(default=20.0, description="and the connection closed when none comes within this")
    min_ping_interval_s: Seconds = Field(default=10.0, description="clients that ping more often are disconnected")
    reload_s: float = Field(default=2.0, ge=0, le=3600, description="how often the file is looked at for changes; 0: never")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="what the log on stderr has")
    tls: TlsSettings = Field(default=TlsSettings(), description="TLS files")

    @model_validator(mode="after")
    def _no_open_plaintext(self) -> ServerSettings:
        if not (self.listen.is_loopback or self.tls.cert or self.allow_plaintext):
            raise ValueError(
                f"listen: {self.listen} is not on loopback, and tokens would cross the network unencrypted; "
                "set tls.cert and tls.key, or spell out allow_plaintext = true"
            )
        return self


class IssuerSettings(_Table):
    """[[issuers]]: the arguments of `grpc_bearer.Issuer`."""

    issuer: str = Field(description="the exact `iss` of the tokens")
    audiences: Texts = Field(default=(), description="what `aud` has to name, one of them")
    allow_any_audience: bool = Field(default=False, description="accept tokens whatever their `aud`; in place of audiences")
    algorithms: Texts = Field(default=DEFAULT_ALGORITHMS, description="allowed signature algorithms")
    jwks_uri: str | None = Field(default=None, description="address of the JWK Set; https://, or http:// on loopback")
    jwks_file: Path | None = Field(default=None, description="file with the JWK Set")
    discovery: str | None = Field(default=None, description="address of the OpenID metadata; default: under the issuer")
    leeway_s: float = Field(default=30.0, description="clock skew granted to exp, nbf and iat")
    max_lifetime_s: float | None = Field(default=None, description="exp at most this long after iat")
    require_at_jwt: bool = Field(default=False, description="accept only access tokens by RFC 9068: typ at+jwt")
    scope_claims: Texts = Field(default=(), description="further claims that hold scopes, as realm_access.roles")
    fetch: Annotated[FetchOptions, BeforeValidator(_known_fields(FetchOptions))] = FetchOptions()
    cache: Annotated[CachePolicy, BeforeValidator(_known_fields(CachePolicy))] = CachePolicy()

    @model_validator(mode="after")
    def _usable(self) -> IssuerSettings:
        try:
            self.to_issuer()
        except ConfigurationError as error:
            raise ValueError(_as_settings(str(error))) from None
        return self

    def to_issuer(self) -> Issuer:
        """The issuer for the library."""
        return Issuer(
            self.issuer,
            audiences=self.audiences,
            allow_any_audience=self.allow_any_audience,
            algorithms=self.algorithms,
            jwks_uri=self.jwks_uri,
            jwks_file=self.jwks_file,
            discovery_uri=self.discovery,
            leeway_s=self.leeway_s,
            max_lifetime_s=self.max_lifetime_s,
            require_at_jwt=self.require_at_jwt,
            scope_claims=self.scope_claims,
            fetch=self.fetch,
            cache=self.cache,
        )


class ClaimRuleSettings(_Table):
    """An element of [[rules]] claims: the arguments of `grpc_bearer.ClaimRule`."""

    name: str = Field(description="the claim, or a path into nested ones with dots")
    any_of: Texts = Field(default=(), description="one of the claim's values has to be one of these")
    all_of: Texts = Field(default=(), description="each of these has to be one of the claim's values")
    present: bool = Field(default=False, description="the claim has to be there")


class RuleSettings(_Table):
    """[[rules]]: a `grpc_bearer.Policy` for methods by name; wins over what their protos say."""

    methods: Texts = Field(min_length=1, description="package.Service/Method, or package.Service/* for the rest of a service")
    access: Access = Field(default=Access.AUTHENTICATED, description="authenticated, public, optional or deny")
    scopes: Texts = Field(default=(), description="scopes that the token has to have, all of them")
    any_scopes: Texts = Field(default=(), description="scopes of which the token has to have one")
    claims: Annotated[tuple[ClaimRuleSettings, ...], BeforeValidator(_by_index)] = Field(default=())
    issuers: Texts = Field(default=(), description="issuers whose tokens are accepted")
    audiences: Texts = Field(default=(), description="`aud` has to name one of these")
    max_age_s: float | None = Field(default=None, description="seconds since auth_time (else iat), at the most")
    streams: Streams = Field(default=Streams.TERMINATE, description="at the token's end: terminate, or finish")
    stream_grace_s: float = Field(default=0.0, description="how long a stream may go on after its token's end")

    @model_validator(mode="after")
    def _consistent(self) -> RuleSettings:
        self.to_rule()
        return self

    def to_rule(self) -> Rule:
        """The rule for the library. Raises `ConfigurationError`, a `ValueError`."""
        claims = tuple(ClaimRule(rule.name, rule.any_of, rule.all_of, rule.present) for rule in self.claims)
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in ("methods", "claims")}
        return Rule(self.methods, Policy(claims=claims, **fields))


class MetricsSettings(_Table):
    """[metrics]: for Prometheus, over HTTP."""

    listen: Listen | None = Field(default=None, description="HOST:PORT of /metrics; without it there is none")


class DevSettings(_Table):
    """[dev]: the embedded issuer of `serve --dev`."""

    listen: LoopbackListen = Field(default=Address("127.0.0.1", 50052), description="HOST:PORT of the issuer; loopback only")
    state_dir: Path = Field(default=Path(".grpc-bearer-dev"), description="folder of its signing keys, made at the first start")
    audience: str = Field(default="grpc-bearer-dev", min_length=1, description="`aud` of its tokens")
    ttl_s: int = Field(default=900, ge=1, le=86_400, description="lifetime of its tokens when the asker does not say")


class Settings(BaseSettings):
    """All there is to set. Sources, first wins: environment, then what the constructor is given (the file)."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, enable_decoding=False, extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    issuers: Annotated[tuple[IssuerSettings, ...], BeforeValidator(_by_index)] = ()
    rules: Annotated[tuple[RuleSettings, ...], BeforeValidator(_by_index)] = ()
    verdicts: Annotated[VerdictCachePolicy, BeforeValidator(_known_fields(VerdictCachePolicy))] = VerdictCachePolicy()
    metrics: MetricsSettings = MetricsSettings()
    dev: DevSettings = DevSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings
