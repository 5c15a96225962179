"""One attack's clients in a process of their own: `python -m campaign.attacker JOB`.

Each line on standard input, `attack SECONDS` or `twin SECONDS`, is carried out; a line of JSON says how it went.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path

from campaign.attacks import ATTACKS, Wallet
from campaign.load import Load

_YIELDING = 5
"""How nice it is to the good caller on the same cores: what is measured is the server, not who gets the client's core."""


def files_as_far_as_allowed() -> None:
    """Raise the limit of open files of this process to what it may be, and that of the processes that it starts with it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Carry out what standard input says, until it ends."""
    job = json.loads(sys.argv[1])
    os.nice(_YIELDING)
    files_as_far_as_allowed()
    (attack,) = (one for one in ATTACKS if one.name == job["attack"])
    members = json.loads(Path(job["wallet"]).read_text(encoding="ascii"))
    wallet = Wallet(**members)
    loads = {which: (load, wallet.tokens(load.tokens)) for which, load in (("attack", attack), ("twin", attack.twin))}
    print("ready", flush=True)
    for line in sys.stdin:
        which, seconds = line.split()
        load, tokens = loads[which]  # these go on where the last window has left off
        tally = asyncio.run(Load(load, job["target"], tokens).run(float(seconds)))
        print(json.dumps(tally.members()), flush=True)


if __name__ == "__main__":
    main()
