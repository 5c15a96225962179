"""Hot reload: the settings file is looked at by content, and a version that can be used takes the place of the last one, whole.

By content and by polling: editors and Kubernetes replace files by renames and links, and a mount may tell nobody of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from grpc_bearer import ConfigurationError

from .loading import SettingsError, parse, read
from .settings import Settings

SETTLE_S: Final = 0.05
"""Between two reads of a new version: half of a file that is written in place may be valid TOML."""
RELOADED: Final = frozenset({"strict", "public_methods"})
"""What of [server] is reloaded."""

_log = logging.getLogger("grpc_bearer.reload")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings as they were read: from `path` with this `content`. Without a `path` there is nothing to watch."""

    settings: Settings
    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def from_file(cls, path: Path | None) -> Loaded:
        """Raises `SettingsError`."""
        content = None if path is None else read(path)
        watched = path if path is not None and path.is_file() else None  # a pipe gives its content once
        return cls(parse(content, path), watched, content)


class Reloader:
    """Watches a settings file. `apply` puts issuers and rules to use, or raises and changes nothing.

    `generation` counts the versions in use, the first included; `failed` is whether the newest content is not in use.
    `settle_s`: between the two reads of a new version that have to agree.
    """

    def __init__(self, loaded: Loaded, apply: Callable[[Settings], None], *, settle_s: float = SETTLE_S) -> None:
        self._loaded = loaded
        self._seen = loaded.content
        self._apply = apply
        self._settle_s = settle_s
        self._reported = ""
        self.generation = 1
        self.failed = False

    async def follow(self, every_s: float, asked: asyncio.Event) -> None:
        """Look at the file every `every_s` seconds (0: never), and whenever `asked` is set, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), every_s or None)
            asked.clear()
            try:
                await self.look()
            except Exception as error:  # no thread to be had, or a bug of ours: tried again, and the watch goes on
                self._seen = None
                self._report(f"unexpected {type(error).__name__}")

    async def look(self) -> None:
        """Look once. A version that cannot be used is reported once, and the last good one stays."""
        path = self._loaded.path
        if path is None:
            return
        try:
            content = await self._settled(path)
            if content == self._seen:
                return
            self._seen = content
            if content == self._loaded.content:
                self._in_use("the settings file has again what is in use")
                return
            settings = await asyncio.to_thread(self._put_to_use, content, path)
        except SettingsError as error:
            self._report("; ".join(error.lines))
        except ConfigurationError as error:
            self._report(str(error))
        else:
            self.generation += 1
            self._in_use(f"settings reloaded (version {self.generation})")
            if _needs_a_restart(settings) != _needs_a_restart(self._loaded.settings):
                kept = ", ".join(sorted(RELOADED))
                _log.warning(
                    "[server], [verdicts], [metrics] or [dev] have changed too: that takes a restart, but for %s", kept
                )
            self._loaded = replace(self._loaded, settings=settings, content=content)

    async def _settled(self, path: Path) -> bytes:
        """The file's content; that of a new version as soon as two reads agree. Raises `SettingsError`."""
        try:
            content = await asyncio.to_thread(read, path)
            while content != self._seen:
                await asyncio.sleep(self._settle_s)
                earlier, content = content, await asyncio.to_thread(read, path)
                if content == earlier:
                    break
        except SettingsError:
            self._seen = None  # whatever it has when it is back is to be looked at
            raise
        return content

    def _put_to_use(self, content: bytes, path: Path) -> Settings:
        """In a thread: it parses, and joins the threads of issuers that are gone."""
        settings = parse(content, path)
        self._apply(settings)
        return settings

    def _in_use(self, text: str) -> None:
        self.failed, self._reported = False, ""
        _log.warning("%s: %s", self._loaded.path, text)

    def _report(self, text: str) -> None:
        self.failed = True
        if text == self._reported:
            return
        self._reported = text
        _log.error("settings are NOT reloaded, the last good ones stay in use: %s", text)


def _needs_a_restart(settings: Settings) -> dict[str, Any]:
    """What of the settings is used at the start only."""
    others = {name: getattr(settings, name) for name in ("verdicts", "metrics", "dev")}
    return {"server": settings.server.model_dump(exclude=set(RELOADED)), **others}
