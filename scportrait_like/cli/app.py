"""The commands."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scportrait_like.cli.console import telling

if TYPE_CHECKING:
    from scportrait_like.project import Project

PROGRAM = "scportrait-like"

app = typer.Typer(
    name=PROGRAM,
    help="Single-cell images and intensities, in a project folder: memory bounded, resumable.",
    epilog="Exit codes: 0 done; 1 a run failed (details in processing.log); 2 wrong use; "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    # rich would take half of the time that --help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What a mask shows."""

    cytosol = "cytosol"
    nucleus = "nucleus"


# Texts of the list of commands, where the first line of a docstring is too long for it.
_LOAD = "Load an image and masks into a project."
_RUN = "Run the steps of the config, or go on with them."
_NEW = "Make a project folder."
_REPORT = "Write a page with pictures."
_DEMO = "Do all of it on a small real section."
_DEMO_PICTURES = {
    "input_image.png": "the input with the outlines of the mask",
    "masks.png": "the mask",
    "single_cells_data.png": "single-cell images, channel by channel",
    "map_intensities.png": "each cell in the colour of its mean intensity, stain by stain",
    "distribution_intensities.png": "the mean intensities of all cells",
    "report.html": "all of it on a page",
}
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The project folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything; show tracebacks.")]


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        import scportrait_like

        typer.echo(f"{PROGRAM} {scportrait_like.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(short_help=_NEW)
def new(
    directory: Directory,
    template: Annotated[str, typer.Option(metavar="NAME", help="See `templates`.")] = "default",
) -> None:
    """Make a project folder: a config.yml with all options explained, and a run.py."""
    with telling(directory, _line("new", directory)):
        from scportrait_like.cli.templates import copy_template

        made = copy_template(template, directory)
    for path in made:
        typer.echo(f"made {path}")
    if not made:
        typer.echo(f"{directory} is set up already")
    typer.echo(f"Next: {_line('load', directory, '--image', 'IMAGE', '--labels', 'MASK')}")


@app.command(short_help=_LOAD)
def load(
    directory: Directory,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="One TIFF with all channels; or one a channel, the option repeated; or an "
            "OME-Zarr; or a SpatialData store.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A mask: TIFF, zarr or OME-Zarr, of any integer type."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the mask shows.")] = Kind.cytosol,
    channels: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Names of the channels.")
    ] = None,
    image_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="SpatialData: name of the image.")
    ] = None,
    nucleus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="SpatialData: name of the mask of the nuclei."),
    ] = None,
    cytosol: Annotated[
        str | None, typer.Option(metavar="NAME", help="SpatialData: name of the mask of the cells.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another image or mask.")
    ] = False,
    memory_limit: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 4GB.")] = None,
    debug: Debug = False,
) -> None:
    """Load an image and masks into a project; what is loaded already is left alone."""
    with telling(directory, "the same command again; it loads what is missing", debug):
        from scportrait_like.cli.image_paths import load_image
        from scportrait_like.errors import InputError

        if not image and labels is None:
            raise InputError("nothing to load: give --image, --labels or both")
        project = _project(directory, overwrite=overwrite, memory_limit=memory_limit, debug=debug)
        if image:
            names = [name.strip() for name in channels.split(",")] if channels else None
            load_image(project, image, names, image_name, nucleus, cytosol)
        if labels is not None:
            project.load_labels(labels, kind.value)
        _show_inputs(project)
    typer.echo(f"Next: {_line('run', directory)}")


@app.command(short_help=_RUN)
def run(
    directory: Directory,
    steps: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STEP]...", help="Sections of the config; default: all."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what was made from other settings or inputs."),
    ] = False,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="inline, threads, processes or dask.")
    ] = None,
    memory_limit: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 4GB.")] = None,
    debug: Debug = False,
) -> None:
    """Run the steps of the config, or go on with them where they stopped."""
    with telling(directory, _line("run", directory, *(steps or [])), debug, bar=True):
        from scportrait_like.errors import ConfigError

        project = _project(
            directory,
            overwrite=overwrite,
            executor=executor,
            memory_limit=memory_limit,
            debug=debug,
        )
        if not project.steps:
            raise ConfigError(f"{project.config_path}: no section names a step; nothing to run")
        project.run(steps or None)
        _show_steps(project)


@app.command()
def status(directory: Directory, debug: Debug = False) -> None:
    """Show what is loaded, and how far each step is. Writes nothing."""
    with telling(directory, _line("status", directory), debug, log=False):
        project = _project(directory, debug=debug)
        _show_inputs(project)
        _show_steps(project)


@app.command(short_help=_REPORT)
def report(directory: Directory, debug: Debug = False) -> None:
    """Write a page with pictures, and what became of every cell."""
    with telling(directory, _line("report", directory), debug):
        page = _project(directory, debug=debug).report()
        typer.echo(page)


@app.command()
def templates() -> None:
    """List the templates of `new`."""
    from scportrait_like.cli.templates import templates

    known = templates()
    width = max(map(len, known))
    for name, purpose in known.items():
        typer.echo(f"{name:{width}}  {purpose}")


@app.command(short_help=_DEMO)
def demo(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A folder.")] = Path(
        "demo_project"
    ),
) -> None:
    """Do all of it on a small real section that ships with scikit-image."""
    _echo("new", directory, "--template", "demo")
    if (directory / "config.yml").exists():
        typer.echo(f"{directory} is set up already")
    else:
        new(directory, "demo")
    with telling(directory, _line("demo", directory)):
        from scportrait_like.datasets import demo_files

        image, labels = demo_files(directory / "input")
    options = ("--image", image, "--labels", labels, "--kind", "nucleus")
    _echo("load", directory, *options)
    load(directory, [image], labels, Kind.nucleus)
    for command in (run, status, report):
        _echo(command.__name__, directory)
        command(directory)
    typer.echo("\nLook at the pictures:")
    for picture, shows in _DEMO_PICTURES.items():
        typer.echo(f"  {directory / 'report' / picture}: {shows}")
    with telling(directory, _line("demo", directory), log=False):
        _show_intensities(_project(directory))


def _project(directory: Path, **options: Any) -> Project:
    """Open a project folder, with steps of the user's own within reach."""
    from scportrait_like.errors import MissingInputError
    from scportrait_like.project import Project

    if not directory.is_dir():
        raise MissingInputError(
            f"{directory}: no such project folder; make one: {_line('new', directory)}"
        )
    # Last, so that no file of the user's hides a package.
    for folder in (str(directory.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    return Project(directory, **options)


def _line(*words: str | Path) -> str:
    """How a user writes a command."""
    return shlex.join([PROGRAM, *map(str, words)])


def _echo(*words: str | Path) -> None:
    typer.secho(f"\n$ {_line(*words)}", bold=True)


def _show_inputs(project: Project) -> None:
    elements = project.filehandler.element_names()
    rasters = [name for name, kind in elements.items() if kind in ("images", "labels")]
    for name in rasters:
        array = project.filehandler.open_array(name)
        shape = " x ".join(map(str, array.shape))
        channels = ""
        if elements[name] == "images":
            channels = f": {', '.join(project.filehandler.channel_names(name))}"
        typer.echo(f"{name} ({shape}, {array.dtype}){channels}")
    if not rasters:
        typer.echo("nothing is loaded")


def _show_intensities(project: Project) -> None:
    """Where the table of the demo is, and its first rows."""
    from scportrait_like.names import INTENSITIES

    table = project.sdata[INTENSITIES]
    cells, channels = table.shape
    typer.echo(
        f"\nThe mean intensities, {cells} cells x {channels} channels: the table {INTENSITIES!r} "
        f"of {project.filehandler.path}"
    )
    typer.echo(table.to_df().head(3).round(1).to_string(index_names=False))
    typer.echo(f"Its layers: {', '.join(sorted(table.layers))}")


def _show_steps(project: Project) -> None:
    for line in project.status():
        typer.echo(line)
    if not project.steps:
        typer.echo("no steps in the config")
