"""What all programs share: flags, errors without a traceback, and a cache for compilation."""

import contextlib
import ctypes
import errno
import gc
import os
import pathlib
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.config import caches, defaults, fields, naming, settings
from triplet_jax import errors
from triplet_jax.devices import processes, signals
from triplet_jax.runs import health

REFUSED = 2
FAILED = 1
LOST = 3  # a process, room on a disk, or time, as it was stopped: the same command goes on

# Flags of several programs: two modules that define one cannot both be imported.
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
DATA = flags.DEFINE_string(
    "data", None, "Where the run's data are now, if they were moved: dataset.path or data_dir."
)
OUTPUT = flags.DEFINE_string("output", None, "The file to write.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of the first of several processes, or 'auto'."
)
PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes this run has.")
PROCESS = flags.DEFINE_integer("process", -1, "The number of this process, from 0.")


def run(
    main: Callable[[], None],
    *,
    of_several: bool = False,
    again: str = "Run the same command again.",
    takes: Sequence[flags.FlagHolder] = (),
) -> None:
    """Runs a program: parses flags, calls `main`, and turns errors into a message.

    Args:
      main: the program.
      of_several: whether it may have several processes, which it joins by `start_processes`.
      again: what to do after an end with status 3, and what is kept then.
      takes: which of `DATA` and `OUTPUT` it reads.

    The exit status is 0 after the end and after a stop that was asked for, 2 after refused input,
    1 after a failed run, and 3 if a process or room on a disk is missing, or if the program was
    asked to stop with nothing to save.
    """
    global _go_on
    _go_on = again

    def guarded(_):
        use_xla_flags()
        prepare()
        try:
            if not of_several and (COORDINATOR.value or PROCESSES.value or PROCESS.value >= 0):
                raise errors.InputError(
                    "--coordinator, --processes and --process are of train, evaluate and embed:"
                    " this program is one process. Leave them out."
                )
            for flag in (DATA, OUTPUT):
                if flag.value and not any(flag is one for one in takes):
                    raise errors.InputError(f"--{flag.name} is of other programs: leave it out.")
            main()
        except (Exception, KeyboardInterrupt) as error:
            found = _ending(error)
            if found is None:
                raise
            _leave(*found)

    app.run(guarded, flags_parser=_parse)


def prepare() -> None:
    """Prepares a process for its work: its signals, its caches, and what libraries may print."""
    # Orbax and grain log the traceback of an error that they raise as well.
    logging.use_absl_handler()
    logging.set_verbosity(logging.FATAL)
    # Python's tracker of shared memory is a process of its own. At the end it frees what a stream
    # had loaded ahead, and would print a warning after the program's last line.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    gc.freeze()  # what was imported stays, and need not be looked through for garbage
    use_compilation_cache()
    signals.interrupt_on_signals()
    sys.unraisablehook = _leave_out_late_reads


def _ending(error):
    """The message and the exit status of an error; None for a defect, which keeps its traceback."""
    if isinstance(error, errors.InputError):
        return str(error), REFUSED
    if isinstance(error, health.NotFiniteError):
        return str(error), FAILED
    if isinstance(error, errors.LostError):
        return f"{error} {_go_on}", LOST
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {error}. {_go_on}", LOST
    if isinstance(error, OSError):
        return _ending_of_files(error)
    if isinstance(error, jax.errors.JaxRuntimeError | ValueError):
        return _ending_of_devices(error)
    return None


def _ending_of_files(error):
    name, why = error.filename or "a file", error.strerror or str(error)
    if error.errno in _PASSES:
        mend = "Free some space" if error.errno in _FULL else "Mend that"
        return f"{name} cannot be used: {why}. {mend}. {_go_on}", LOST
    return None if error.filename is None else (f"{name} cannot be used: {why}.", FAILED)


def _ending_of_devices(error):
    why = (str(error).strip().splitlines() or [""])[0]
    # jax raises the failure of a collective as either, depending on where it learns of it.
    if isinstance(error, ValueError) and not _OF_XLA.match(why):
        return None
    if "Out of memory" in why:
        return f"{_NO_MEMORY} ({why}).", FAILED
    return (f"{_ALONE} ({why}). {_go_on}", LOST) if processes.several() else None


_CLONE = pathlib.Path(__file__).resolve().parents[1]


def _leave_out_late_reads(unraisable):
    """Prints an error that nobody can catch, unless it comes from a read of a damaged checkpoint.

    Such a read may end after orbax has reported the damage, which is reported once.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


# Errors of a file system after which a later try may succeed.
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PASSES = errors.NOT_ANSWERING | _FULL | {errno.EROFS, errno.EACCES, errno.EPERM}

_NO_MEMORY = (
    "a device has too little memory: set train.micro_batches higher, or batch.* or model.* lower"
)
_OF_XLA = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")
_ALONE = "another process of this run has ended, or cannot be reached"
# Set by `run`; a variable of the module, since a handler in C prints it too.
_go_on = ""


def start_processes() -> None:
    """Joins the processes of this program, if there are several: see `devices.processes`."""
    with _saying_when_others_are_lost(), naming.as_flags("coordinator", "processes", "process"):
        processes.start(*(flag.value for flag in (COORDINATOR, PROCESSES, PROCESS)))
    processes.check_devices()
    processes.meet()


@contextlib.contextmanager
def _saying_when_others_are_lost() -> Iterator[None]:
    """Ends this process with a message where jax would abort it with a dump, now and later.

    jax aborts when other processes do not come, and, from a thread of its own, when it learns that
    one has gone before the collective that waits for it fails. While the process joins the others,
    it is in C, where no handler of Python hears a signal to stop either.
    """
    global _complain_to
    _complain_to = os.dup(2)
    of_abort, *_ = [signals.on_signal(n, _end) for n in (signal.SIGABRT, *signals.SIGNALS)]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(_complain_to, 2)
        if processes.several():
            signals.share_sigterm()
        else:
            signals.on_signal(signal.SIGABRT, of_abort)
        for number in signals.SIGNALS:
            signal.signal(number, signal.getsignal(number))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _end(number):
    why = _ALONE if number == signal.SIGABRT else f"stopped by {signal.Signals(number).name}"
    os.write(_complain_to, f"error: {why}. {_go_on}\n".encode())
    os._exit(LOST)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(caches.folder("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)


def use_xla_flags() -> None:
    """Sets flags of XLA that suit training; a flag that XLA_FLAGS sets already takes precedence.

    Only versions of jax that know the flags get them, since XLA ends a program on an unknown flag.
    """
    if (0, 10) <= jax.__version_info__ < (0, 13):
        os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])


_FLAGS = (
    # On a CPU, convolutions by Eigen: by YNNPACK a kernel's gradient took 2 to 9 times as long.
    "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution",
    # On a CPU, operations one after the other: the order for concurrency keeps more in memory. A
    # step of the encoders took as long either way on two cores. With model.remat and jax 0.11 the
    # order for concurrency takes less: see docs/scaling.md.
    "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # On a GPU, no search for the best kernel of each fusion, which took minutes for a loss of all
    # triplets of a large batch.
    "--xla_gpu_experimental_enable_fusion_autotuner=false",
)


def config_file(kind: str, meaning: str) -> flags.FlagHolder:
    """Defines the flag --config for a file; --config.FIELD=VALUE then changes a field of it.

    The knobs of the user's own miner or loss can be set too, where the file or a flag names it. A
    file that is not in the working directory is looked for in the clone.

    Args:
      kind: what the file describes: "run", "sweep" or "study".
      meaning: what the flag is for.
    """
    holder = config_flags.DEFINE_config_file("config", help_string=meaning)
    flag = flags.FLAGS["config"]
    flag.parser = _WithOwnKnobs(flag.parser, kind)
    return holder


class _WithOwnKnobs(flags.ArgumentParser):
    """Loads a config, and adds the knobs of the user's own parts before flags look them up."""

    def __init__(self, of_file: flags.ArgumentParser, kind: str):
        self._of_file, self._kind = of_file, kind

    def parse(self, path):
        name = path.partition(":")[0]
        is_elsewhere = not pathlib.Path(name).exists() and (_CLONE / name).is_file()
        config = self._of_file.parse(str(_CLONE / path) if is_elsewhere else path)
        _check_read(config)
        _check_kind(config, self._kind)
        is_run = self._kind == "run"
        run, prefix = (config, "config.") if is_run else (config.run, "config.run.")
        defaults.add_own_knobs(run, run.to_dict())
        for field, section in fields.WITH_KNOBS.items():
            name = _last_value(sys.argv, prefix + field)
            if name:
                defaults.add_own_knobs(run, {section: {field.rpartition(".")[2]: name}})
        return config


def _check_read(config):
    """Refuses a file that is not there: ml_collections gives an object that raises when used."""
    try:
        getattr(config, "fields", None)
    except OSError as error:
        why = error.__cause__
        if why.filename is None:
            said = "there is no such file. Give one, such as configs/digits.py."
            raise errors.InputError(said) from error
        raise errors.InputError(f"{why.filename} cannot be read: {why.strerror}.") from error


# By what a config describes: a field that no other kind has, what takes it, and what makes it.
_KINDS = {
    "run": ("dataset", "experiments.train", "configs.base"),
    "sweep": ("arms", "experiments.sweep", "configs.sweeps.base"),
    "study": ("space", "experiments.tune", "configs.tune.base"),
}


def _check_kind(config, kind):
    """Refuses the config of something else, whose fields would be missed one by one."""
    field, program, base = _KINDS[kind]
    if not isinstance(config, ml_collections.ConfigDict) or field not in config:
        for other, (its_field, its_program, _) in _KINDS.items():
            if isinstance(config, ml_collections.ConfigDict) and its_field in config:
                raise errors.InputError(
                    f"this is the config of a {other}, for {its_program}; {program} takes that of"
                    f" a {kind}."
                )
        raise errors.InputError(f"this is no config of a {kind}: begin with {base}.get_config.")


def _last_value(argv, flag):
    """The value of the last flag of this name, given as --NAME=VALUE or --NAME VALUE."""
    found = None
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and name.lstrip("-") == flag:
            found = value if equals else following
    return found


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"{rest[1]!r} is no flag; flags start with two dashes.")
        return rest
    except (KeyError, AttributeError) as error:
        # An override of a field that the config does not have.
        _leave(_unknown_field(argv, str(error)) or str(error), REFUSED)
    except (flags.Error, OSError) as error:
        # A config file that raises is reported with its traceback; its last line says why.
        said = str(error).strip().splitlines()[-1]
        _leave(_CLASS.sub("", said), REFUSED)


# What a traceback puts before the message of an error that refuses input.
_CLASS = re.compile(r"^(triplet_jax\.errors\.InputError|ValueError): ")


def _unknown_field(argv, said):
    """The message for the unknown --config.FIELD that an error complains of; None if none is."""
    known = {*settings.flat(defaults.get_config()), *fields.SWEEP.fields, *fields.TUNE.fields}
    known |= {"run", "slurm"}
    said = said.replace("\\", "")  # of a quote in quotes
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config.") and any(f"'{part}'" in said for part in name.split(".")):
            field = name.removeprefix("config.").removeprefix("run.")  # of a sweep
            try:
                errors.check_known("config field", field, known)
            except errors.InputError as unknown:
                return f"{unknown} docs/fields.md lists all fields."
            return f"config field={name.removeprefix('config.')!r} is not known here."
    return None


def leave(status: int) -> NoReturn:
    """Ends the process without waiting for a thread.

    Those of jax and orbax may wait for what never comes, such as another process or the rest of a
    checkpoint that could not be written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _leave(message, status):
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    leave(status)


def required(flag: flags.FlagHolder, meaning: str) -> str:
    """The value of a flag that must be given.

    Raises:
      InputError: it was not given.
    """
    if not flag.value:
        raise errors.InputError(f"--{flag.name} is missing: {meaning}.")
    return flag.value


def file_to_write(flag: flags.FlagHolder, *suffixes: str) -> pathlib.Path:
    """The path in a flag that must be given, before anything is computed for it.

    Args:
      flag: the flag.
      *suffixes: the endings that the file may have.

    Raises:
      InputError: it was not given, has another suffix or is a folder, or its folder does not exist
        or is read-only.
    """
    path = pathlib.Path(required(flag, f"the {' or '.join(suffixes)} file to write"))
    folder = path.absolute().parent
    is_file = not path.is_dir() or path.suffix == ".lance"
    if path.suffix not in suffixes or not is_file or not folder.is_dir():
        raise errors.InputError(
            f"--{flag.name}={path} must be a file named *{' or *'.join(suffixes)},"
            " in a folder that exists."
        )
    if not os.access(folder, os.W_OK):
        raise errors.InputError(f"--{flag.name}={path} cannot be written: its folder is read-only.")
    return path


def make_workdir(path: str) -> pathlib.Path:
    """The folder of a run, created if need be.

    Raises:
      InputError: it cannot be written.
      OSError: it cannot be written now, and may be later.
    """
    return make_folder(pathlib.Path(path), f"--workdir={path}", "Give a folder that can.")


def make_folder(path: pathlib.Path, name: str, fix: str) -> pathlib.Path:
    """A folder to write in, created if need be, as an absolute path.

    Args:
      path: of the folder.
      name: what it is called in messages.
      fix: what to do where it cannot be written.

    Raises:
      InputError: it cannot be written.
      OSError: it cannot be written now, and may be later.
    """
    folder = path.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in errors.NOT_ANSWERING | _FULL:
            raise
        raise errors.InputError(f"{name} cannot be written: {error.strerror}. {fix}") from error
    return folder
