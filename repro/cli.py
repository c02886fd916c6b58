"""The `repro` command: its options and what they mean. Commands import what they need, so that help comes at once."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from repro import QUICKSTART
from repro.engines.base import Engine, Gpus, On, Request

if TYPE_CHECKING:
    import docker

# Plain help texts: importing rich takes longer than all else that they need.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, rich_markup_mode=None,
                  help="Reproduce RepBlend (NeurIPS 2025): run the pipeline, read the report, verify the results.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                        help="Bring a data set, check a copy of one, or look at it.")
checkpoints_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None,
                              help="List, fetch and check encoders from the model hub.")
image_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                        help="Make the container image, move it, look into it.")
cluster_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look whether a cluster is fit for a run.")
app.add_typer(data_app, name="data")
app.add_typer(checkpoints_app, name="checkpoints")
app.add_typer(image_app, name="image")
app.add_typer(cluster_app, name="cluster")

Targets = Annotated[list[str] | None, typer.Argument(
    metavar="[STAGE]...",
    help="Stages to bring up to date, with all that they need, for example 'experts' or 'distill@repblend-100'. "
         "All of the profile by default.")]
ProfileOption = Annotated[str, typer.Option(
    "--profile", metavar="NAME",
    help="What to run, and at which scale: 'quickstart' takes some minutes, 'openmoji' hours, for every table and "
         "figure; `repro profile` lists the others.")]
EngineOption = Annotated[Engine, typer.Option(
    "--engine", envvar="REPRO_ENGINE",
    help="Where to run: 'docker' in a container, 'local' on this machine, 'auto' in a container if an engine answers. "
         "A missing image is built.")]
GpusOption = Annotated[Gpus, typer.Option(
    "--gpus", help="GPUs of the container: 'auto' gives it all that the engine can give.")]
MemoryOption = Annotated[float | None, typer.Option(
    "--memory", metavar="GIB", min=0.1, help="Memory limit of the container; nine tenths of this machine's by default.",
    show_default=False)]


@app.command("doctor")
def doctor_command() -> None:
    """Check this machine and this clone. Say how to mend what is missing."""
    from repro import doctor
    raise typer.Exit(doctor.main())


@app.command("profile")
def profile_command(name: Annotated[str | None, typer.Argument(
                        metavar="[NAME]", help="Which one; without it all are listed.")] = None,
                    changes: Annotated[list[str] | None, typer.Argument(
                        metavar="[KEY=VALUE]...", help="Parameters that differ, as 'distill.common.iterations=100'.")]
                    = None) -> None:
    """Write a profile's parameters, to edit and run; or list all."""
    from repro import profiles
    raise typer.Exit(profiles.main(name, changes or []))


@app.command("new")
def new_command(name: Annotated[str, typer.Argument(help="Of the new profile and its data set.")],
                data: Annotated[Path, typer.Option(
                    metavar="FOLDER", help="Images with a captions.csv, captions.json, captions.jsonl or "
                    "metadata.jsonl, or tar shards. They stay there.")],
                like: Annotated[str, typer.Option(
                    metavar="PROFILE", help="Whose settings are taken, but for those that follow from counts.")]
                = QUICKSTART,
                captions: Annotated[str | None, typer.Option(
                    metavar="FILE", help="In the folder, if it has several files that could hold the captions.",
                    show_default=False)] = None) -> None:
    """Check a captioned set of yours and make a workspace for it, with settings that fit its size."""
    from repro.own import new
    raise typer.Exit(new.main(name, data, like, captions))


@app.command("run")
def run_command(targets: Targets = None, profile: ProfileOption = QUICKSTART, engine: EngineOption = Engine.AUTO,
                 gpus: GpusOption = Gpus.AUTO, memory: MemoryOption = None,
                on: Annotated[On | None, typer.Option(
                    "--on", help="Run a job per stage, and per expert: 'slurm' on a cluster that cluster.yaml "
                                 "describes, 'gpus' on every GPU of this machine. A suite's profiles run side by side.",
                    show_default=False)] = None,
                mixed: Annotated[bool, typer.Option(
                    "--mixed", help="With --on: take results of several kinds of hardware, each of which then says its "
                                    "own.")] = False) -> None:
    """Bring the pipeline up to date and print the results. Interrupt it at any time and run it again to go on."""
    from repro import run
    if mixed and on is None:
        raise typer.BadParameter("give it with --on: one process computes on one kind of hardware",
                                 param_hint="--mixed")
    raise typer.Exit(run.main(targets or [], profile, Request(engine, gpus, memory), on, mixed))


@app.command("plan")
def plan_command(targets: Targets = None, profile: ProfileOption = QUICKSTART,
                 stages: Annotated[bool, typer.Option("--stages", help="A line for every stage.")] = False,
                 workers: Annotated[int | None, typer.Option(
                     metavar="N", min=1, show_default=False,
                     help="GPUs or nodes that work side by side, a stage or an expert each; by default the plan says "
                          "it for 1, 8 and 64.")] = None,
                 on: Annotated[On | None, typer.Option(
                     "--on", show_default=False, help="As many workers as this machine has GPUs, or as cluster.yaml "
                                                      "lets jobs run at once.")] = None) -> None:
    """Print what a run would do and take: time, memory, disk, downloads. Nothing starts."""
    from repro import plan
    raise typer.Exit(plan.main(targets or [], profile, stages, workers, on))


@app.command("jobs")
def jobs_command(
        names: Annotated[list[str] | None, typer.Argument(
            metavar="[STAGE]...", help="Only these stages or single jobs, as 'distill', 'distill@lors-50' or "
                                       "'experts.3'.")] = None,
        profile: Annotated[str | None, typer.Option(
            "--profile", metavar="NAME", help="Only this profile's; those of all by default.", show_default=False)]
        = None,
        cancel: Annotated[bool, typer.Option("--cancel", help="End them. What they have stored is kept.")] = False,
        once: Annotated[bool, typer.Option("--once", help="Show the table once, and do not refresh it.")] = False
        ) -> None:
    """Show the jobs of runs on a cluster or on several GPUs. Stage, state, node, time, progress; again every few
    seconds."""
    from repro.cluster import table
    raise typer.Exit(table.main(names or [], profile, cancel, once))


@cluster_app.callback()
def cluster_command() -> None:
    """Look whether a cluster is fit for a run, before one starts."""


@cluster_app.command("check")
def cluster_check_command(
        profile: ProfileOption = QUICKSTART,
        on: Annotated[On, typer.Option(
            "--on", help="The cluster that cluster.yaml describes, or the GPUs of this machine.")] = On.SLURM) -> None:
    """Say whether nodes see what a run needs, by one short job. Shared folder, cache, data, image, GPU; each with its
    remedy."""
    from repro.cluster import check
    raise typer.Exit(check.main(profile, on))


@app.command("tune")
def tune_command(profile: ProfileOption = QUICKSTART,
                 method: Annotated[list[str] | None, typer.Option(
                     help="As in params.yaml: one that distils, a coreset, or a coreset with '+encoder-students'. "
                     "Given several times, they are searched in turn, trial by trial; repblend by default.",
                     show_default=False)] = None,
                 every: Annotated[bool, typer.Option(
                     "--all", help="Every method of the profile's grid that has settings to search, in turn.")] = False,
                 budget: Annotated[int | None, typer.Option(
                     min=3, help="Pairs of the set; the largest of the grid by default.", show_default=False)] = None,
                 minutes: Annotated[float | None, typer.Option(
                     min=0.0, help="Of trials of a study in all, those of earlier sessions included; one is run in any "
                     "case. 10 by default where no number of trials is given.",
                     show_default=False)] = None,
                 trials: Annotated[int | None, typer.Option(
                     min=1, help="Of a study at most, likewise; 12 by default with --processor-seconds or for several "
                     "methods.",
                     show_default=False)] = None,
                 iterations: Annotated[int | None, typer.Option(
                     min=1, help="Of a distillation on trial; its own number by default.", show_default=False)] = None,
                 processor_seconds: Annotated[float | None, typer.Option(
                     min=1.0, help="Of every trial, in the place of --iterations: a distillation gets as many as fit, "
                     "so that methods get the same.", show_default=False)] = None,
                 include: Annotated[list[str] | None, typer.Option(
                     metavar="'KEY=VALUE ...'", help="A trial with these settings, the others as they are, before "
                     "any more are drawn: 'optimiser.lr.images=0.0005 segments=1'. May be given several times.",
                     show_default=False)] = None,
                 write: Annotated[bool, typer.Option(
                     help="Put better settings into params.yaml, with the name of the study.")] = True) -> None:
    """Search methods' settings on the validation split. Interrupt it at any time and run it again to go on."""
    from repro import equal_searches
    raise typer.Exit(equal_searches.main(profile, None if every else method or ["repblend"], budget, minutes, trials,
                                         iterations, processor_seconds, write, include or []))


@app.command("rehearse")
def rehearse_command(
        kinds: Annotated[list[str] | None, typer.Argument(
            metavar="[KIND]...", help="Words; only kinds of work with one of them in their names.")] = None,
        profile: ProfileOption = QUICKSTART,
        steps: Annotated[int, typer.Option(min=1, help="Of each kind, after one to warm up.")] = 3,
        minutes: Annotated[float, typer.Option(help="For the steps of a kind; one is taken in any case.")] = 4.0,
        memory: Annotated[float | None, typer.Option(
            metavar="GIB", help="What a kind may take; nine tenths of what is free by default.", show_default=False)]
        = None) -> None:
    """Take a few real steps of all that a run would do. Writes time and memory to `rehearsal.json`, for `repro
    plan`."""
    from repro import rehearse
    raise typer.Exit(rehearse.main(profile, steps, minutes, memory, kinds or []))


@app.command("report")
def report_command(profile: ProfileOption = QUICKSTART) -> None:
    """Make every table and figure from the stored records."""
    from repro import run
    raise typer.Exit(run.report_main(profile))


@app.command("compare")
def compare_command(against: Annotated[str | None, typer.Argument(
                        metavar="[COMMIT|FOLDER]", help="What is recorded; by default the last commit.",
                        show_default=False)] = None,
                    profile: ProfileOption = QUICKSTART) -> None:
    """Compare the recorded results with what was computed here. One verdict, then every result; exit code 1 where
    results disagree, 2 where none was computed here."""
    from repro import compare
    raise typer.Exit(compare.main(against, profile))


@app.command("claims")
def claims_command(profile: Annotated[str | None, typer.Option(
                       "--profile", metavar="NAME", show_default=False,
                       help="Of which workspace; without it each claim's own profiles.")] = None,
                   as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say which of the papers' claims hold here. Published effect, ours with a 95 % interval, verdict, files."""
    from repro import claims
    raise typer.Exit(claims.main(profile, as_json))


@app.command("verify")
def verify_command(targets: Targets = None, profile: ProfileOption = QUICKSTART, engine: EngineOption = Engine.AUTO,
                   gpus: GpusOption = Gpus.AUTO, memory: MemoryOption = None) -> None:
    """Run everything again elsewhere and compare every hash. In a clean checkout of the commit, without any
    cache."""
    from repro import verify
    raise typer.Exit(verify.main(targets or [], profile, Request(engine, gpus, memory)))


@app.command("export")
def export_command(
        what: Annotated[str, typer.Argument(
            help="Which set, for example 'repblend-100'. As official files also 'experts' or 'encoder-experts'.")],
        path: Annotated[str, typer.Argument(
            help="Where to: a folder, replaced if it is an earlier export; a file for an official set.")],
        form: Annotated[Literal["folder", "official"], typer.Option(
            "--format", help="A folder with a data card, or the files that the official code reads.")] = "folder",
        profile: ProfileOption = QUICKSTART) -> None:
    """Write a set for others to load. As a folder that needs no code of this project, or as the official release's
    files.
    """
    from repro import run
    raise typer.Exit(run.export_main(what, path, form, profile))


@app.command("pull")
def pull_command(what: Annotated[Literal["metrics", "distilled", "trajectories", "all"], typer.Argument(
        help="metrics: enough for the report. distilled: the distilled sets. trajectories: features and experts.")]
        = "metrics",
        remote: Annotated[str | None, typer.Option(help="A DVC remote; by default DVC's default one.")] = None,
        profile: ProfileOption = QUICKSTART) -> None:
    """Bring what was computed elsewhere, and check its SHA-256. Run it again to go on."""
    from repro.artifacts import pull
    from repro.artifacts.manifest import Artifacts
    raise typer.Exit(pull.main(Artifacts(what), remote, profile))


@app.command("push")
def push_command(
        what: Annotated[Literal["metrics", "distilled", "trajectories", "all"], typer.Argument(
            help="As of `repro pull`.")] = "all",
        remote: Annotated[str | None, typer.Option(
            help="A DVC remote; by default DVC's default one, unless that is the folder artifacts/ of the clone.")]
        = None, profile: ProfileOption = QUICKSTART) -> None:
    """Publish what was computed here. What dvc.lock names, with the manifest that `repro pull` checks."""
    from repro.artifacts import push
    from repro.artifacts.manifest import Artifacts
    raise typer.Exit(push.main(Artifacts(what), remote, profile))


@app.command("parity")
def parity_command(files: Annotated[list[str], typer.Argument(help="Recordings of the official implementation.")]
                   ) -> None:
    """Replay recordings of the official implementation. Print the largest difference of every array (.npz)."""
    from repro import run
    raise typer.Exit(run.parity_main(files))


# `repro data`: bring the data sets of the paper, and look whether a copy of one is whole.

DataName = Annotated[str, typer.Argument(help="flickr30k, coco, cc3m, or the name of your own set in params.yaml.")]
Folder = Annotated[Path | None, typer.Argument(
    help="Where it lies; by default where params.yaml says, data/NAME for a published one.", show_default=False)]


@data_app.command("fetch")
def data_fetch_command(name: DataName, folder: Folder = None) -> None:
    """Bring a published data set and check it. As far as it may be brought; run it again to go on."""
    from repro.fetch import datasets
    raise typer.Exit(datasets.main(name, folder))


@data_app.command("forget")
def data_forget_command(name: DataName,
                        file: Annotated[str, typer.Argument(help="The fetched file, as `flickr30k_train.json`.")],
                        folder: Folder = None) -> None:
    """Forget a fetched file that was trusted by mistake. It is removed; what comes next is trusted again."""
    from repro.fetch import datasets
    raise typer.Exit(datasets.forget_main(name, file, folder))


@data_app.command("check")
def data_check_command(name: DataName, folder: Folder = None) -> None:
    """List everything that is wrong with a copy. Rows, captions, counts, images; if nothing is, write its manifest."""
    from repro.fetch import datasets
    raise typer.Exit(datasets.check_main(name, folder))


@data_app.command("show")
def data_show_command(name: DataName, folder: Folder = None,
                      output: Annotated[Path | None, typer.Option(
                          metavar="FILE", help="The page; by default paper/data.html in the profile's workspace.",
                          show_default=False)] = None) -> None:
    """Make one HTML page of a data set. Pictures with captions, sizes, splits, near-duplicates, repeated captions."""
    from repro.own import sheet
    raise typer.Exit(sheet.main(name, folder, output))


# `repro checkpoints`: pre-trained encoders from the model hub.

Encoders = Annotated[list[str] | None, typer.Argument(
    help="Encoders, for example nfnet_l0 or timm:resnet18.a1_in1k. By default those that the profile needs.",
    show_default=False)]
EncodersOf = Annotated[str, typer.Option("--profile", metavar="NAME", help="Whose encoders, if none are named.")]


def _checkpoints(command: Literal["needed", "list", "fetch", "check"], names: list[str] | None, profile: str) -> None:
    from repro.fetch import checkpoints
    raise typer.Exit(checkpoints.main(command, names, profile))


@checkpoints_app.callback()
def checkpoints_command(context: typer.Context, profile: EncodersOf = QUICKSTART) -> None:
    """List, fetch and check encoders from the model hub. Alone: list those that the profile needs."""
    if context.invoked_subcommand is None:
        _checkpoints("needed", None, profile)
    elif profile != QUICKSTART:
        raise typer.BadParameter(f"give it after the command: `repro checkpoints {context.invoked_subcommand} "
                                 f"--profile {profile}`", param_hint="--profile")


@checkpoints_app.command("list")
def checkpoints_list_command() -> None:
    """List all that are declared: size, license, whether they are here."""
    _checkpoints("list", None, QUICKSTART)


@checkpoints_app.command("fetch")
def checkpoints_fetch_command(names: Encoders = None, profile: EncodersOf = QUICKSTART) -> None:
    """Download what is not here yet, and check its SHA-256. Run it again to go on."""
    _checkpoints("fetch", names, profile)


@checkpoints_app.command("check")
def checkpoints_check_command(names: Encoders = None, profile: EncodersOf = QUICKSTART) -> None:
    """Check the SHA-256 of every file; say which are missing or damaged."""
    _checkpoints("check", names, profile)


# `repro image`: make the image of this workspace, move it between machines, and say what is in it.

Base = Annotated[str | None, typer.Option(
    help="Image to build on: NAME@sha256:DIGEST, an id, or an image that the engine has. By default the pinned one.")]
Wheelhouse = Annotated[Path | None, typer.Option(
    help="Folder of packages (`pip download`) to install; the package index is not asked, no network is needed.")]
Authorities = Annotated[Path | None, typer.Option(
    "--ca", help="Folder of certificates to trust while packages are fetched; none of them stays in the image.")]
NetworkOption = Annotated[Literal["default", "host", "none"], typer.Option(
    help="The engine's network that build steps use; 'host' where containers reach nothing else.")]
ArchiveFile = Annotated[Path, typer.Argument(help="The file.")]


@contextlib.contextmanager
def _engine(command: str) -> Iterator["docker.DockerClient"]:
    """Give a client; errors that a user can mend, the engine's own too, end the command with a sentence and code 1."""
    from docker.errors import APIError

    from repro.engines.client import connect
    try:
        yield connect()
    except (ValueError, OSError, APIError) as error:
        print(f"repro image {command}: {getattr(error, 'explanation', None) or error}", file=sys.stderr)
        raise typer.Exit(1) from error


@image_app.command("base")
def image_base_command() -> None:
    """Make a base image where no registry can be reached. From Debian's packages, by debootstrap, as root."""
    with _engine("base") as client:
        from repro.image.build import BASE_NAME, make_base
        print(f"{BASE_NAME} is {make_base(client)}. Build on it: `repro image build --base {BASE_NAME}`")


@image_app.command("build")
def image_build_command(base: Base = None, wheelhouse: Wheelhouse = None, ca: Authorities = None,
                        network: NetworkOption = "default") -> None:
    """Build the image and record what it is made of. From docker/Dockerfile and requirements/lock.txt."""
    with _engine("build") as client:
        from repro.image.build import BuildOptions, build
        from repro.workspace import find_root
        name = build(find_root(), client, BuildOptions(base, wheelhouse, ca, network))
        print(f"{name} is built. `repro image inspect` says what is in it.")


@image_app.command("push")
def image_push_command(reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY[:TAG]")]) -> None:
    """Push the image to a registry. Print the reference to pull it by."""
    with _engine("push") as client:
        from repro.image.transfer import push
        from repro.workspace import find_root
        print(f"Pushed. Elsewhere: `repro image pull {push(find_root(), client, reference)}`")


@image_app.command("pull")
def image_pull_command(reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY@sha256:DIGEST")]) -> None:
    """Pull an image by digest. It becomes this workspace's if it is made of what docker/contents.json says."""
    with _engine("pull") as client:
        from repro.image.transfer import pull
        from repro.workspace import find_root
        print(pull(find_root(), client, reference))


@image_app.command("save")
def image_save_command(file: ArchiveFile) -> None:
    """Write the image to a file, for a machine without a registry."""
    with _engine("save") as client:
        from repro.image.transfer import save
        from repro.workspace import find_root
        print(f"{file}: written, SHA-256 {save(find_root(), client, file)}")


@image_app.command("load")
def image_load_command(file: ArchiveFile) -> None:
    """Load a saved image. It becomes this workspace's if it is made of what docker/contents.json says."""
    with _engine("load") as client:
        from repro.image.transfer import load
        from repro.workspace import find_root
        print(load(find_root(), client, file))


@image_app.command("export")
def image_export_command(file: ArchiveFile) -> None:
    """Write the image to an OCI archive. For clusters that run Apptainer instead of Docker."""
    with _engine("export") as client:
        from repro.image.transfer import export
        from repro.workspace import find_root
        export(find_root(), client, file)
        print(f"{file}: written. `apptainer build repblend.sif oci-archive://{file}` makes Apptainer's image of it")


@image_app.command("inspect")
def image_inspect_command() -> None:
    """Say what the image is made of, and what takes its space."""
    with _engine("inspect") as client:
        from repro.image.contents import inspect
        from repro.workspace import find_root
        print(inspect(find_root(), client))
