"""The command line. Every failure is one line on stderr; exit 2 for a wrong setting or argument, 1 for everything else."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

import click

from grpc_bearer.keys.remote import url_fault

from .__main__ import proto_path
from .app import serve
from .assembly import IDENTITY_SERVICE, embedded_issuer
from .commands import CONFIG, check_config_command, explain_command, policy_command
from .errors import one_line_errors
from .issuer.client import ask_for_token
from .issuer.endpoints import parse_claims
from .issuer.keys import ALGORITHMS
from .issuer.runner import EmbeddedIssuer
from .loading import SettingsError, listing, load
from .reload import Loaded
from .settings import Address, ServerSettings, Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="grpc-bearer")
def cli() -> None:
    """Bearer token authentication for gRPC services: a service to try it with, and its tools."""


@cli.command("serve")
@CONFIG
@click.option("--dev", is_flag=True, help="run the embedded issuer too: tokens for whoever asks, on loopback only")
def serve_command(config: Path | None, dev: bool) -> None:
    """Serve IdentityService behind the interceptor, until SIGTERM or Ctrl-C."""
    with one_line_errors():
        loaded = Loaded.from_file(config)
        settings = loaded.settings
        logging.basicConfig(
            level=settings.server.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its comings and goings are ours
        if not dev:
            asyncio.run(serve(loaded, [], lambda *addresses: _announce(settings.server, *addresses), reflection=False))
            return
        with EmbeddedIssuer(settings.dev) as embedded:
            own = embedded_issuer(settings.dev, embedded.url)
            asyncio.run(serve(loaded, [own], lambda *addresses: _announce_dev(settings, embedded, *addresses), reflection=True))


def _announce(settings: ServerSettings, address: Address, metrics: Address | None) -> None:
    if settings.tls.client_ca is not None:
        transport = "mutual TLS"
    elif settings.tls.cert is not None:
        transport = "TLS"
    else:
        transport = "plaintext, loopback only" if address.is_loopback else "PLAINTEXT: tokens can be read on the network"
    click.echo(f"serving on {address} ({transport})")
    if settings.mode == "report":
        click.echo("AUTHENTICATION IS NOT ENFORCED: mode is report, every call goes on")
    if metrics is not None:
        click.echo(f"metrics on http://{metrics}/metrics")
    sys.stdout.flush()


def _announce_dev(settings: Settings, embedded: EmbeddedIssuer, address: Address, metrics: Address | None) -> None:
    _announce(settings.server, address, metrics)
    click.echo(f"embedded issuer {embedded.url} (for development: on loopback it gives a token to whoever asks)")
    token = embedded.mint()
    security = "" if settings.server.tls.cert is not None else "-plaintext "
    click.echo(f"\nCall it, with a token that is good for {settings.dev.ttl_s // 60} minutes:\n")
    click.echo(f'  grpcurl {security}-H "authorization: Bearer {token}" {address} {IDENTITY_SERVICE}/WhoAmI\n')
    click.echo("A new token: grpc-bearer token (in a clone: make -s token). Stop: Ctrl-C.")
    sys.stdout.flush()


@cli.command("token")
@CONFIG
@click.option("--issuer", help="address of the embedded issuer, from the settings by default")
@click.option("--sub", help="the subject: who the caller is")
@click.option("--aud", help="the audience: for whom the token is")
@click.option("--scope", help="scopes, with spaces between them")
@click.option("--ttl", type=int, help="seconds until it expires; negative: expired already")
@click.option("--client-id", help="the client that asks")
@click.option("--alg", type=click.Choice(ALGORITHMS), help="which of the issuer's keys signs")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="a further claim: JSON or text; repeatable")
def token_command(
    config: Path | None,
    issuer: str | None,
    sub: str | None,
    aud: str | None,
    scope: str | None,
    ttl: int | None,
    client_id: str | None,
    alg: str | None,
    claims: tuple[str, ...],
) -> None:
    """Print a token of the embedded issuer, and nothing else."""
    with one_line_errors():
        settings = load(config)
        if issuer is not None and url_fault(issuer, allow_insecure_http=True):
            raise SettingsError(f"--issuer: is no address of an issuer; write it as http://{settings.dev.listen}")
        try:
            parsed = parse_claims(claims)
        except ValueError as error:
            raise SettingsError(f"--claim: {error}") from None
        given = {"sub": sub, "audience": aud, "scope": scope, "client_id": client_id, "alg": alg}
        form = {name: value for name, value in given.items() if value is not None}
        if ttl is not None:
            form["ttl_s"] = str(ttl)
        if parsed:
            form["claims"] = json.dumps(parsed)
        click.echo(ask_for_token(issuer or f"http://{settings.dev.listen}", form))


@cli.command("settings")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def settings_command(as_json: bool) -> None:
    """List every setting: its place in the TOML file, its environment variable, its default, what it does."""
    rows = listing()
    if as_json:
        click.echo(json.dumps([{name: getattr(row, name) for name in row.__slots__} for row in rows], indent=2))
        return
    for row in rows:
        click.echo(f"{click.style(row.key, bold=True)} = {row.default}\n    {row.variable}\n    {row.description}")


@cli.command("proto-path")
def proto_path_command() -> None:
    """Print the folder of our .proto files, for your own protoc: -I"$(grpc-bearer proto-path)"."""
    click.echo(proto_path())


for command in (policy_command, explain_command, check_config_command):
    cli.add_command(command)
