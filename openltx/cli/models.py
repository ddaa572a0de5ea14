"""``openltx models`` and ``openltx pull``: what was released, what of it is here, and how it gets here."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table

from openltx.checkpoints.releases import RELEASES, Release
from openltx.checkpoints.zoo import cache_place, find_release, local_path
from openltx.checkpoints.zoo import pull as pull_release
from openltx.cli.output import say


def models(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List every release of LTX-Video: size, licence, what it needs, and whether it is on this machine.

    Parameters
    ----------
    as_json
        Print one JSON list instead of a table.
    """
    rows = [_row(release) for release in RELEASES.values()]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(Column("name", no_wrap=True), "what", "GB", "licence", "needs", "here", box=None, pad_edge=False)
    for row in rows:
        here = "yes" if row["path"] else "no"
        what = f"{row['kind']}: {row['about']}"
        table.add_row(row["name"], what, f"{row['gigabytes']:g}", row["licence"], ", ".join(row["needs"]), here)
    console = Console(highlight=False)
    console.print(table, markup=False)
    console.print(f"Fetch one: openltx pull NAME. It goes to {cache_place()}.", markup=False, soft_wrap=True)


def pull(name: str, *, to: Path | None = None) -> None:
    """Fetch a release once; a broken download goes on where it stopped.

    Parameters
    ----------
    name
        The release, as ``openltx models`` names it.
    to
        A folder for plain files. Left out, they go into the cache that `--model NAME` looks in.
    """
    release = find_release(name)
    was_here = to is None and local_path(release) is not None
    say(f"{release.name}: {release.about}\nlicence: {release.licence} ({release.repo})")
    path = pull_release(release, to, report=lambda line: print(line, file=sys.stderr))
    say(f"{path}{'  (already there)' if was_here else ''}")
    for other in release.needs:
        if local_path(RELEASES[other]) is None:
            say(f"goes with: openltx pull {other}")


def _row(release: Release) -> dict[str, Any]:
    path = local_path(release)
    return {
        "name": release.name,
        "kind": release.kind,
        "about": release.about,
        "date": release.date,
        "gigabytes": release.gigabytes,
        "licence": release.licence,
        "needs": list(release.needs),
        "trigger": release.trigger,
        "repo": release.repo,
        "file": release.file,
        "path": None if path is None else str(path),
        "goes_to": str(cache_place()),
    }
