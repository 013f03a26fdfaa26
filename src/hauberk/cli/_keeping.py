"""Commands of `hauberk ledger` for whoever keeps one: export, archive, prune, restore, recover."""

from collections.abc import Sequence
from pathlib import Path

import click

from hauberk.cli._authority import directory_option
from hauberk.cli._output import emit, json_option, note
from hauberk.cli._owner import local_actor, own_settings, owned, unused
from hauberk.core.clock import SYSTEM_CLOCK
from hauberk.recording import recover_directory
from hauberk.records.tile_export import export_tiles

_SHOWN = 'have the authority show the log to anybody: authority.tiles = "HOST:PORT" in hauberk.toml'
_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.command("export")
@_folder
@directory_option
@json_option
def export(folder: Path, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Write checkpoint, tiles and entry bundles to FOLDER (c2sp.org/tlog-tiles), for any web server to show."""
    with owned(directory, _SHOWN) as here:
        done = export_tiles(here.recording.store, here.recording.ledger.log, folder)
    emit(done, as_json=as_json, text=f"{done.size} entries, {done.written} files written to {folder}")


@click.command("archive")
@_folder
@directory_option
@json_option
def archive(folder: Path, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Write sealed segments (256 entries each) to FOLDER. Each verifies alone, and can be restored."""
    with owned(directory) as here:
        done = here.retention().archive(folder, here.actor)
    data = {"first": done.first, "files": [str(file) for file in done.files], "digest": done.digest}
    emit(data, as_json=as_json, text=f"{len(done.files)} segments written to {folder}")


@click.command("prune")
@click.option("--before", type=click.IntRange(1), required=True, help="A position, counted in whole segments of 256.")
@click.option("--type", "types", multiple=True, required=True, help="Event type; can be given more than once.")
@click.option("--archive", "folder", type=click.Path(path_type=Path, exists=True), required=True, help="Its archive.")
@directory_option
@json_option
def prune(before: int, types: Sequence[str], folder: Path, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Delete archived entries of some types; their hashes stay, so every proof stays valid."""
    with owned(directory) as here:
        done = here.retention().prune(before=before, types=types, directory=folder, actor=here.actor)
    emit(done, as_json=as_json, text=f"{done.entries} entries pruned; recorded as entry {done.position}")


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@directory_option
@json_option
def restore(file: Path, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Put the entries of an archived segment back, once each is verified against the log."""
    with owned(directory) as here:
        count = here.retention().restore(file, here.actor)
    emit({"restored": count}, as_json=as_json, text=f"{count} entries restored")


@click.command("recover")
@click.option("--new-epoch", is_flag=True, required=True, help="Go on under another name, saying what is lost.")
@click.option(
    "--known", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A signed checkpoint of a witness."
)
@directory_option
@json_option
def recover(new_epoch: bool, known: Path | None, directory: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click's flags
    """Go on after a database was lost or put back: a new epoch that names both histories for everybody to see."""
    del new_epoch  # said aloud, so that nobody does it by accident
    config = own_settings(directory)
    text = known.read_text("utf-8", "replace") if known is not None else ""
    with unused():
        done = recover_directory(Path(config.directory), config, actor=local_actor().id, known=text, clock=SYSTEM_CLOCK)
    lost = f"entries {done.lost[0]} to {done.lost[1]}" if done.lost else "nothing that is known of"
    lines = [f"epoch   {done.origin}", f"lost    {lost}", "both checkpoints are published in the state directory"]
    emit(done, as_json=as_json, text="\n".join(lines))
    note("tell whoever verifies this log: the key has another name from now on (hauberk ledger key, log.pub)")


COMMANDS = (export, archive, prune, restore, recover)
