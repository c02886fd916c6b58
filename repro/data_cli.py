"""`repro data`: bring the datasets of the paper, and look whether a copy of one is whole."""

from pathlib import Path
from typing import Annotated

import typer

from repro import data_check, data_fetch

app = typer.Typer(no_args_is_help=True, help="Bring a dataset, or check a copy of one.")

Name = Annotated[str, typer.Argument(help="flickr30k, coco, cc3m, or the name of your own set in params.yaml.")]
Folder = Annotated[Path | None, typer.Argument(
    help="Where it lies; by default where params.yaml says, data/NAME for a published one.", show_default=False)]


@app.command("fetch")
def fetch_command(name: Name, folder: Folder = None) -> None:
    """Bring a published dataset, as far as it may be brought, and check it. Run it again to go on."""
    raise typer.Exit(data_fetch.main(name, folder))


@app.command("check")
def check_command(name: Name, folder: Folder = None) -> None:
    """List everything that is wrong with a copy: rows, captions, counts, images. If nothing is, write its manifest."""
    raise typer.Exit(data_check.main(name, folder))
