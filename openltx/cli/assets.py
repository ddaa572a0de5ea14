"""``openltx assets``: other people's weights that are fetched only on request."""

import sys
from pathlib import Path

from cyclopts import App

from openltx.checkpoints.assets import ASSETS, Asset, pull
from openltx.errors import AssetError

assets_app = App(name="assets", help="Fetch or list other people's weights (LPIPS) that are not part of this package.")


@assets_app.command(name="pull")
def pull_command(name: str, *, archive: Path | None = None) -> None:
    """Fetch an asset once, check it by hash, and keep it in the cache.

    Parameters
    ----------
    name
        The asset, as ``openltx assets list`` names it.
    archive
        The asset's source archive, if it was fetched by other means; its hash is checked all the same.
    """
    asset = find_asset(name)
    was_present = asset.is_present
    print(f"{asset.name}: {asset.origin}\nlicence: {asset.licence}")
    for path in pull(asset, archive=archive, report=lambda line: print(line, file=sys.stderr)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB{' (already there)' if was_present else ''}")


@assets_app.command(name="list")
def list_command() -> None:
    """Show the assets, their source and licence, and whether they are here."""
    for asset in ASSETS.values():
        state = "present" if asset.is_present else f"absent; run: openltx assets pull {asset.name}"
        print(f"{asset.name}  ({state})\n  source   {asset.origin}\n  licence  {asset.licence}")
        for path in asset.files.values():
            print(f"  file     {path}")


def find_asset(name: str) -> Asset:
    """The asset of this name; AssetError lists the possible ones."""
    if name not in ASSETS:
        raise AssetError(f"No asset is called {name!r}. Possible: {', '.join(ASSETS)}.")
    return ASSETS[name]
