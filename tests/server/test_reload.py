"""Reloader: which versions of the file are put to use, what is said of the others, and that nothing ends the watch."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from grpc_bearer import ConfigurationError
from grpc_bearer_server.loading import SettingsError
from grpc_bearer_server.reload import SETTLE_S, Loaded, Reloader
from grpc_bearer_server.settings import Settings
from tests.support.calls import until

GOOD = '[[rules]]\nmethods = ["a.B/{}"]\n'
BROKEN = "[[rules"
REFUSED = '[[rules]]\nmethods = ["refused.by/Apply"]\n'
CANNOT = "settings are NOT reloaded, the last good ones stay in use: "


class Watched:
    """A settings file, its reloader, and all that came of it."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.path = path
        self.write(GOOD.format("First"))
        self.applied: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.trouble: Exception | None = None
        self.reloader = Reloader(Loaded.from_file(path), self._apply)
        self._caplog = caplog

    def write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def _apply(self, settings: Settings) -> None:
        self.threads.add(threading.current_thread())
        if self.trouble is not None:
            raise self.trouble
        (method,) = settings.rules[0].methods
        if method == "refused.by/Apply":
            raise ConfigurationError("rules[0]: there is no such service")
        self.applied.append(method)

    def has_in_use(self, version: str) -> bool:
        return self.applied[-1:] == [f"a.B/{version}"]

    async def look(self, text: str | None = None) -> tuple[int, bool]:
        """What the reloader says of itself after a look; `text`: at a new version."""
        if text is not None:
            self.write(text)
        await self.reloader.look()
        return self.reloader.generation, self.reloader.failed

    def said(self) -> list[tuple[int, str]]:
        """What was logged since it was last asked for, without the name of the file."""
        lines = [
            (record.levelno, record.getMessage().replace(str(self.path), "PATH"))
            for record in self._caplog.records
            if record.name == "grpc_bearer.reload"
        ]
        self._caplog.clear()
        return lines

    @asynccontextmanager
    async def followed(self, every_s: float, asked: asyncio.Event | None = None) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reloader.follow(every_s, asked or asyncio.Event()))
        try:
            yield
        finally:
            assert not task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(tmp_path / "settings.toml", caplog)


async def test_the_same_content_is_nothing_new_whatever_became_of_the_file(watched: Watched) -> None:
    assert await watched.look() == (1, False)
    watched.path.touch()
    other = watched.path.with_suffix(".new")
    other.write_text(GOOD.format("First"))
    other.replace(watched.path)
    assert await watched.look() == (1, False)
    assert (watched.applied, watched.said()) == ([], [])


async def test_a_new_version_is_put_to_use_once_and_off_the_loop(watched: Watched) -> None:
    assert await watched.look(GOOD.format("Second")) == (2, False)
    assert await watched.look() == (2, False)
    assert watched.applied == ["a.B/Second"]
    assert watched.said() == [(logging.WARNING, "PATH: settings reloaded (version 2)")]
    assert threading.main_thread() not in watched.threads


async def test_the_loop_goes_on_while_a_version_is_put_to_use(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("")
    entered, go_on = threading.Event(), threading.Event()

    def slow(_settings: Settings) -> None:
        entered.set()
        assert go_on.wait(20)

    reloader = Reloader(Loaded.from_file(path), slow)
    path.write_text("[server]\nstrict = true\n")
    looking = asyncio.create_task(reloader.look())
    await until(entered.is_set)
    assert not looking.done()
    go_on.set()
    await looking
    assert reloader.generation == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BROKEN, "PATH: is not TOML: Expected ']]' at the end of an array declaration (at end of document)"),
        (
            '[server]\nlistn = "x"\ndrain_s = -1',
            "PATH: server.drain_s: input should be greater than or equal to 0; PATH",
        ),
        (REFUSED, "rules[0]: there is no such service"),
        ("a = " + "[" * 100_000, "PATH: is "),  # nested too deeply, or no TOML, by the version of Python
    ],
)
async def test_a_version_that_cannot_be_used_is_reported_once_and_the_last_good_one_stays(
    text: str, why: str, watched: Watched
) -> None:
    await watched.look(GOOD.format("Second"))
    watched.said()
    assert await watched.look(text) == (2, True)
    assert await watched.look() == (2, True)
    ((level, said),) = watched.said()
    assert level == logging.ERROR
    assert said.startswith(CANNOT + why)
    assert watched.applied == ["a.B/Second"]
    assert await watched.look(GOOD.format("Third")) == (3, False)
    assert watched.applied == ["a.B/Second", "a.B/Third"]
    assert watched.said() == [(logging.WARNING, "PATH: settings reloaded (version 3)")]


async def test_another_broken_version_is_reported_anew_if_there_is_anything_new_to_say(watched: Watched) -> None:
    await watched.look(BROKEN)
    await watched.look("\n" + "[[rules")
    await watched.look(REFUSED)
    await watched.look("# again\n" + REFUSED)
    assert [said.partition(": ")[2].partition(":")[0] for _level, said in watched.said()] == ["PATH", "rules[0]"]
    assert watched.reloader.failed


async def test_a_broken_version_that_is_taken_back_leaves_what_is_in_use(watched: Watched) -> None:
    assert await watched.look(BROKEN) == (1, True)
    watched.said()
    assert await watched.look(GOOD.format("First")) == (1, False)
    assert watched.said() == [(logging.WARNING, "PATH: the settings file has again what is in use")]
    assert watched.applied == []
    assert await watched.look(BROKEN) == (1, True)
    assert len(watched.said()) == 1


@pytest.mark.parametrize("back", ["First", "Second"])
async def test_a_file_that_is_gone_is_reported_once_and_looked_at_when_it_is_back(back: str, watched: Watched) -> None:
    watched.path.unlink()
    assert await watched.look() == (1, True)
    assert await watched.look() == (1, True)
    assert watched.said() == [(logging.ERROR, CANNOT + "PATH: cannot be read: No such file or directory")]
    assert await watched.look(GOOD.format(back)) == ((1, False) if back == "First" else (2, False))
    assert watched.applied == ([] if back == "First" else ["a.B/Second"])
    assert len(watched.said()) == 1


async def test_a_folder_in_the_place_of_the_file_is_no_version_of_it(watched: Watched) -> None:
    watched.path.unlink()
    watched.path.mkdir()
    assert await watched.look() == (1, True)
    assert watched.said() == [(logging.ERROR, CANNOT + "PATH: cannot be read: Is a directory")]


async def test_a_broken_version_that_comes_back_after_the_file_was_gone_is_still_broken(watched: Watched) -> None:
    await watched.look(BROKEN)
    watched.path.unlink()
    await watched.look()
    assert await watched.look(BROKEN) == (1, True)
    assert len(watched.said()) == 3


async def test_a_link_to_another_version_is_followed(watched: Watched, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(GOOD.format("Second"))
    watched.path.unlink()
    watched.path.symlink_to(other)
    assert await watched.look() == (2, False)
    assert watched.applied == ["a.B/Second"]


async def test_half_a_file_is_not_put_to_use_while_the_rest_of_it_is_written(watched: Watched) -> None:
    reloader = Reloader(Loaded.from_file(watched.path), watched._apply, settle_s=0.7)
    half = GOOD.format("Half")  # which would be good by itself
    watched.path.write_text(half)
    looking = asyncio.create_task(reloader.look())
    await asyncio.sleep(0.1)
    watched.path.write_text(half.replace("Half", "Whole"))
    await looking
    assert watched.applied == ["a.B/Whole"]


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("[server]\ndrain_s = 1\n", True),
        ('[server]\nmode = "report"\n', True),
        ('[server.tls]\ncert = "c"\nkey = "k"\n', True),
        ('[metrics]\nlisten = "127.0.0.1:1"\n', True),
        ("[dev]\nttl_s = 1\n", True),
        ("[verdicts]\nmax_entries = 0\n", True),
        ("[server]\nstrict = true\n", False),
        ('[server]\npublic_methods = ["/a.B/C"]\n', False),
        ('[[issuers]]\nissuer = "https://a.example"\naudiences = ["a"]\n', False),
    ],
)
async def test_a_change_that_takes_a_restart_is_told_once(text: str, is_told: bool, watched: Watched) -> None:
    await watched.look(text + GOOD.format("Second"))
    told = (
        logging.WARNING,
        "[server], [verdicts], [metrics] or [dev] have changed too: that takes a restart, but for public_methods, strict",
    )
    assert watched.said()[1:] == ([told] if is_told else [])
    await watched.look(text + GOOD.format("Third"))
    assert len(watched.said()) == 1


async def test_the_file_is_looked_at_again_and_again(watched: Watched) -> None:
    async with watched.followed(0.01):
        for version in ("Second", "Third", "Fourth"):
            watched.write(GOOD.format(version))
            await until(partial(watched.has_in_use, version))
    assert watched.reloader.generation == 4


async def test_with_an_interval_of_0_it_is_looked_at_when_that_is_asked_for(watched: Watched) -> None:
    asked = asyncio.Event()
    async with watched.followed(0, asked):
        watched.write(GOOD.format("Second"))
        await asyncio.sleep(SETTLE_S * 4)
        assert watched.applied == []
        for version in ("Second", "Third"):
            watched.write(GOOD.format(version))
            asked.set()
            await until(partial(watched.has_in_use, version))


async def test_what_nobody_expected_is_reported_without_its_text_and_tried_again(watched: Watched) -> None:
    watched.trouble = RuntimeError("hunter2")
    async with watched.followed(0.01):
        watched.write(GOOD.format("Second"))
        await until(lambda: watched.reloader.failed)
        assert watched.said() == [(logging.ERROR, CANNOT + "unexpected RuntimeError")]
        watched.trouble = None
        await until(lambda: watched.applied == ["a.B/Second"])
    assert (watched.reloader.generation, watched.reloader.failed) == (2, False)


async def test_without_a_file_there_is_nothing_to_look_at(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GRPC_BEARER_SERVER__STRICT", "true")
    loaded = Loaded.from_file(None)
    assert loaded.settings.server.strict
    reloader = Reloader(loaded, never)
    await reloader.look()
    assert (reloader.generation, reloader.failed) == (1, False)


def never(_settings: Settings) -> None:
    """For a reloader that has nothing to put to use."""
    raise AssertionError("put to use")


async def test_a_pipe_is_read_at_the_start_and_never_again() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"[server]\nstrict = true\n")
    os.close(writing)
    try:
        loaded = Loaded.from_file(Path(f"/dev/fd/{reading}"))
        assert loaded.settings.server.strict
        reloader = Reloader(loaded, never)
        await reloader.look()
        assert (reloader.generation, reloader.failed) == (1, False)
    finally:
        os.close(reading)


@pytest.mark.parametrize("make", [lambda _path: None, Path.mkdir])
def test_a_file_that_cannot_be_read_at_the_start_is_an_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    make(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        Loaded.from_file(path)
