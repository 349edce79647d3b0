"""Beam's runners: which are known, how one is chosen, and how a person sees one at work.

On one machine it is Beam's FnApiRunner, in as many processes as asked for; a cluster's runner is
named with `--runner`, and options that are not ours go to Beam.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TextIO

from wit import storage
from wit.console import Screen
from wit.errors import UserError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

LOCAL_RUNNER = "FnApiRunner"
RUNNERS = ("FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner", "PrismRunner")
REFUSED_RUNNERS = {
    "DirectRunner": "it is a different engine on each machine",
    "DaskRunner": "it loses data silently",
}
PAUSE, REMOTE_PAUSE = 0.5, 5.0  # seconds between two looks
FEW, LONGEST = 8, 500  # lines and characters of an error that are said whole
MISSING = {  # what Beam says where a part of a runner is not there, and what to do
    r"remote job server jar at (\S+?):? ": "its job server (a jar) is not on this machine and "
    "cannot be downloaded; get {} and name it with --flink_job_server_jar (or --spark_...)",
    r"remote prism binary at (\S+?):? ": "its program is not on this machine and cannot be "
    "downloaded; get {} and name it with --prism_location",
    r"No such file or directory: '(java)'": "its job server needs {}, which is not installed; "
    "install it, or name it with --job_server_java_launcher",
}
USER_ERROR = re.compile(r"wit\.errors\.\w+: (.+?)(?: \[while running|\\n|\n|$)")


# --- choosing ---------------------------------------------------------------------------------


def check_name(runner: str, beam_options: list[str], command: str) -> None:
    """Raises a UserError for a runner that is not to be used, or options that no one knows."""
    if runner == LOCAL_RUNNER and beam_options:
        raise UserError(
            f"unknown option {beam_options[0]}; see {command} --help "
            "(Beam's own options go with a --runner of a cluster)"
        )
    known = f"{', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}"
    if runner in REFUSED_RUNNERS:
        raise UserError(
            f"--runner {runner} is not used: {REFUSED_RUNNERS[runner]}; leave it "
            f"out for this machine ({LOCAL_RUNNER}), or name {known}"
        )
    if runner not in (LOCAL_RUNNER, *RUNNERS) and "." not in runner:
        raise UserError(
            f"--runner {runner} is not known; leave it out for this machine "
            f"({LOCAL_RUNNER}), or name {known}, or a runner's class with its module"
        )


def check_loads(name: str) -> None:
    """Loads a cluster's runner, before anything is read or written.

    Raises:
        UserError: where its module or a package that it needs is missing.
    """
    if name == LOCAL_RUNNER:
        return
    logging.disable(logging.WARNING)  # Beam tells which of its other parts are missing
    try:
        from apache_beam.runners.runner import PipelineRunner, create_runner

        runner = create_runner(name)
        if name == "DataflowRunner":
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"--runner {name}: cannot be loaded ({said}); check the name, or install what it needs"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    if not isinstance(runner, PipelineRunner):
        raise UserError(f"--runner {name}: is no runner of Beam's; check the name")


def choose(
    name: str, workers: int, beam_options: list[str]
) -> tuple[FnApiRunner | str, PipelineOptions]:
    """Returns Beam's runner and options: on this machine as many processes as asked for."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if name != LOCAL_RUNNER:
        return name, PipelineOptions(beam_options)
    settings = PipelineOptions([f"--direct_num_workers={workers}"])
    if workers == 1:
        return FnApiRunner(), settings
    command = [sys.executable, "-m", "wit.worker", str(os.getpid())]
    environment = SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(command)}")
    return FnApiRunner(environment), settings


# --- at work ----------------------------------------------------------------------------------


def watch(
    execute: Callable[[], None],
    runner: str,
    log: str,
    board: Callable[[Screen], Callable[[], None]],
) -> None:
    """Calls `execute` in a thread and has the board look how far it is until it ends.

    Ctrl-C reaches this thread alone: the workers never see it, and end with this process. What
    workers and libraries write to standard error goes to the file `log`. `board` is called once
    with the screen; what it returns is called at each look.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        UserError: with the line of the one that a worker met, or else the last line of what went
            wrong and the file that holds all of it.
    """
    failure: list[BaseException] = []

    def guarded() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            execute()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=guarded, name="pipeline", daemon=True)
    thread.start()
    pause = PAUSE if storage.is_local(log) else REMOTE_PAUSE
    with muted(log) as out, Screen(out) as screen:
        look = board(screen)
        while thread.is_alive():
            thread.join(pause)
            look()
        look()
        if failure:
            os.write(2, "".join(traceback.format_exception(failure[0])).encode())
    if failure:
        raise explained(failure[0], runner, log) from failure[0]


@contextlib.contextmanager
def muted(log: str) -> Iterator[TextIO]:
    """Gives standard error for our own lines; what workers and libraries write goes to a log."""
    sys.stderr.flush()
    ours = os.dup(2)
    folder = storage.split(log)[0]
    with contextlib.ExitStack() as stack:
        if storage.is_local(log):
            storage.make_folder(folder)
            file: BinaryIO = stack.enter_context(open(storage.local_path(log), "wb"))
        else:
            file = stack.enter_context(storage.spool(folder))
        out = stack.enter_context(os.fdopen(ours, "w"))
        os.dup2(file.fileno(), 2)
        try:
            yield out
        finally:
            out.flush()
            sys.stderr.flush()
            os.dup2(ours, 2)
        if not storage.is_local(log) and file.seek(0, os.SEEK_END):
            file.seek(0)
            storage.write_bytes(log, file.read())


def explained(error: BaseException, runner: str, log: str) -> UserError:
    """Returns the UserError that a worker raised, out of what the runner made of it.

    Of another error it says the last line, and that `log` holds the rest.
    """
    said = str(error)
    if isinstance(error, UserError):  # Beam adds to it where it works in this process
        return UserError(said.partition(" [while running")[0])
    found = USER_ERROR.findall(said)
    if found:
        return UserError(found[-1].strip())
    for pattern, advice in MISSING.items():
        missing = re.search(pattern, said)
        if missing:
            return UserError(f"--runner {runner}: {advice.format(missing[1])}")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    short = len(lines) <= FEW and "Traceback" not in said
    line = " ".join(lines if short else lines[-1:])[:LONGEST]
    name = "" if "Traceback" in said or not short else f"{type(error).__name__}: "
    return UserError(f"--runner {runner} failed: {name}{line} (all of it: {log})")
