"""``openltx assets``: other people's weights and videos that are fetched only on request."""

import sys
from pathlib import Path

from cyclopts import App

from openltx.checkpoints.assets import ASSETS, Asset, find_asset, pull

assets_app = App(
    name="assets", help="Fetch or list other people's weights and videos that are not part of this package."
)


@assets_app.command(name="pull")
def pull_command(name: str, *, archive: Path | None = None) -> None:
    """Fetch an asset once, check it by hash, and keep it in the cache.

    Parameters
    ----------
    name
        The asset, as ``openltx assets list`` names it.
    archive
        The archive that the asset is taken from, if it was fetched by other means; its hash is checked all the same.
    """
    asset = find_asset(name)
    was_present = asset.is_present
    print("\n".join([f"{asset.name}: {asset.origin}", *_rights(asset)]))
    for path in pull(asset, archive=archive, report=lambda line: print(line, file=sys.stderr)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB{' (already there)' if was_present else ''}")


@assets_app.command(name="list")
def list_command() -> None:
    """Show the assets, their source, licence and credit, and whether they are here."""
    for asset in ASSETS.values():
        state = "present" if asset.is_present else f"absent; run: openltx assets pull {asset.name}"
        print(f"{asset.name}  ({state})\n  source:  {asset.origin}")
        for line in _rights(asset):
            print(f"  {line}")
        for path in asset.files.values():
            print(f"  file:    {path}")


def _rights(asset: Asset) -> list[str]:
    credit = [f"credit:  {asset.credit}"] if asset.credit else []
    return [f"licence: {asset.licence}", *credit]
