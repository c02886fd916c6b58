"""The `repro` command."""

from typing import Annotated

import typer

from repro import doctor, export, parity, plan, profile, pull, push, report, run, verify
from repro.artifacts import Artifacts
from repro.checkpoints import app as checkpoints_app
from repro.data_cli import app as data_app
from repro.export import Format
from repro.image_cli import app as image_app
from repro.profiles import QUICKSTART
from repro.runner import Engine, Gpus, Wishes

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Reproduce RepBlend (NeurIPS 2025): run the pipeline, read the report, verify the results.")
app.add_typer(data_app, name="data")
app.add_typer(checkpoints_app, name="checkpoints")
app.add_typer(image_app, name="image")

Targets = Annotated[list[str] | None, typer.Argument(
    help="Stages to bring up to date, with all that they need, for example 'experts' or 'distill@repblend-100'. "
         "All of the profile by default.")]
ProfileOption = Annotated[str, typer.Option(
    "--profile", metavar="NAME",
    help="At which scale: 'quickstart' takes some minutes, 'openmoji' is every table and figure (hours); `repro "
         "profile` lists the others.")]

EngineOption = Annotated[Engine, typer.Option(
    "--engine", envvar="REPRO_ENGINE",
    help="Where to run: 'docker' in a container, 'local' on this machine, 'auto' in a container if an engine answers; "
         "the image is built if it is missing.")]
GpusOption = Annotated[Gpus, typer.Option(
    "--gpus", help="GPUs of the container: 'auto' gives it all that the engine can give.")]
MemoryOption = Annotated[float | None, typer.Option(
    "--memory", metavar="GIB", min=0.1, help="Memory limit of the container; nine tenths of this machine's by default.",
    show_default=False)]


@app.command("doctor")
def doctor_command() -> None:
    """Check this machine and this workspace, and say how to mend what is missing."""
    raise typer.Exit(doctor.main())


@app.command("profile")
def profile_command(name: Annotated[str | None, typer.Argument(help="Which one; all are listed without.")] = None,
                    changes: Annotated[list[str] | None, typer.Argument(
                        metavar="[KEY=VALUE]...", help="Parameters that differ, as 'distill.common.iterations=100'.")]
                    = None) -> None:
    """Write a profile's workspace: the parameters that were published, to be edited and run."""
    raise typer.Exit(profile.main(name, changes or []))


@app.command("run")
def run_command(targets: Targets = None, profile: ProfileOption = QUICKSTART, engine: EngineOption = Engine.AUTO,
                gpus: GpusOption = Gpus.AUTO, memory: MemoryOption = None) -> None:
    """Bring the pipeline up to date and print the results. Interrupt it at any time and run it again to go on."""
    raise typer.Exit(run.main(targets or [], profile, Wishes(engine, gpus, memory)))


@app.command("plan")
def plan_command(targets: Targets = None, profile: ProfileOption = QUICKSTART) -> None:
    """Print what a run would do, and what it would take in time, memory, disk and downloads. Nothing starts."""
    raise typer.Exit(plan.main(targets or [], profile))


@app.command("report")
def report_command(profile: ProfileOption = QUICKSTART) -> None:
    """Regenerate every table and figure from the stored metrics alone."""
    raise typer.Exit(report.main(profile))


@app.command("verify")
def verify_command(targets: Targets = None, profile: ProfileOption = QUICKSTART, engine: EngineOption = Engine.AUTO,
                   gpus: GpusOption = Gpus.AUTO, memory: MemoryOption = None) -> None:
    """Run the committed pipeline again in a clean checkout, without any cache, and compare every output's hash."""
    raise typer.Exit(verify.main(targets or [], profile, Wishes(engine, gpus, memory)))


@app.command("parity")
def parity_command(files: Annotated[list[str], typer.Argument(help="Recordings of the official implementation.")]
                   ) -> None:
    """Replay recordings of the official implementation (.npz) and print the largest difference per array."""
    raise typer.Exit(parity.main(files))


@app.command("export")
def export_command(
        what: Annotated[str, typer.Argument(
            help="Whose set, for example 'repblend-100'. As official files also 'experts' or 'encoder-experts'.")],
        path: Annotated[str, typer.Argument(
            help="Where to: a folder, replaced if it is an earlier export; a file for an official set.")],
        form: Annotated[Format, typer.Option(
            "--format", help="A folder with a data card, or the files that the official code reads.")] = Format.FOLDER,
        profile: ProfileOption = QUICKSTART) -> None:
    """Write a set as a folder that others can load without this package, or as the official release's files."""
    raise typer.Exit(export.main(what, path, form, profile))


@app.command("pull")
def pull_command(what: Annotated[Artifacts, typer.Argument(
        help="metrics: enough for the report. distilled: the distilled sets. trajectories: features and experts.")]
        = Artifacts.METRICS,
        remote: Annotated[str | None, typer.Option(help="A DVC remote; by default DVC's default one.")] = None,
        profile: ProfileOption = QUICKSTART) -> None:
    """Bring artifacts that were computed elsewhere, and check every file's SHA-256. Run it again to go on."""
    raise typer.Exit(pull.main(what, remote, profile))


@app.command("push")
def push_command(remote: Annotated[str | None, typer.Argument(
        help="A DVC remote; by default DVC's default one.")] = None,
        profile: ProfileOption = QUICKSTART) -> None:
    """Publish the cached artifacts that dvc.lock names, and write the manifest that `repro pull` checks."""
    raise typer.Exit(push.main(remote, profile))
