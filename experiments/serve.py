"""Serves a page on which a picture is dropped, and shows the nearest images of a folder.

    python -m experiments.serve --workdir=runs/mine --gallery=FOLDER

Then open the address that it prints; Ctrl-C ends it. A program gets the same as JSON:

    curl -F picture=@photo.jpg http://127.0.0.1:8000/search

The gallery is brought up to date at the start, as `experiments.search` does; what changes in the
folder later is seen after the next start. Only this machine can reach the page, unless --host is an
address of the network.
"""

import contextlib
import ipaddress
import pathlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

from absl import flags

from experiments import command
from experiments.run import embedders, galleries, image_flags, search_flags, served_gallery
from triplet_jax import errors

HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all networks.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen on; 0 takes a free one.")
KNOWN_AS = flags.DEFINE_multi_string(
    "known_as", [], "Another name or address of this machine in a browser; may be repeated."
)
LIMIT = flags.DEFINE_integer("upload_limit", 32, "The largest picture that may be sent, in MiB.")

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
# The seconds that requests have to end after Ctrl-C.
_PATIENCE = 5


def main() -> None:
    uvicorn, search_page = web()
    check_flags()
    # First of all, so that a port that is taken is reported before anything is embedded.
    with bound(HOST.value, PORT.value) as listener:
        served = open_gallery()
        with ThreadPoolExecutor(max_workers=1) as worker:
            app = search_page.application(
                served, worker=worker, hosts=host_names(), limit=LIMIT.value
            )
            listen(listener)
            serve(uvicorn, app, listener)
            worker.shutdown(cancel_futures=True)


def web() -> tuple[ModuleType, ModuleType]:
    """The modules uvicorn and search_page.

    Raises:
      InputError: uvicorn, starlette or python-multipart is not installed.
    """
    try:
        import python_multipart  # noqa: F401, starlette imports it with the first form
        import uvicorn

        from experiments.run import search_page
    except ImportError as error:
        raise errors.InputError(
            "experiments.serve needs starlette, uvicorn and python-multipart:"
            " pip install -e '.[serve]'"
        ) from error
    return uvicorn, search_page


def check_flags() -> None:
    """Refuses flags that make no sense, before anything is loaded.

    Raises:
      InputError: naming the flag.
    """
    search_flags.check_numbers()
    if not 0 <= PORT.value < 2**16:
        raise errors.InputError(f"--port={PORT.value} must be from 0, for a free one, to 65535.")
    if LIMIT.value < 1:
        raise errors.InputError(f"--upload_limit={LIMIT.value} must be at least 1, in MiB.")
    for name in KNOWN_AS.value:
        if not name or set(name) & set("*/@ "):
            raise errors.InputError(
                f"--known_as={name} must be a name or an address, such as 192.168.1.5."
            )


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on --host and --port, which refuses connections until `listen`.

    Raises:
      InputError: the address is not of this machine, or the port is taken.
    """
    with _naming_address(), contextlib.ExitStack() as stack:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = stack.enter_context(socket.socket(family, kind))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        stack.pop_all()
    with listener:
        yield listener


@contextlib.contextmanager
def _naming_address() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.InputError(
            f"--host={HOST.value} --port={PORT.value} cannot be listened on: {error.strerror}."
            " Give another --port, or --port=0 for a free one."
        ) from error


def open_gallery() -> served_gallery.ServedGallery:
    """Brings the gallery up to date, and reads it and what else the flags name.

    Raises:
      InputError: a folder or a file cannot be used.
    """
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = search_flags.folder()
    listing = image_flags.list_folder(search_flags.GALLERY, workdir)
    calibration = search_flags.list_calibration(workdir)
    galleries.make_place(galleries.place_of(workdir, folder, search_flags.GALLERY_DIR.value))
    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    dim = embedder.dim
    threshold = search_flags.find_threshold(workdir, calibration, embedder, dim)
    if threshold:
        print(threshold)
    with search_flags.opened(workdir, folder, listing, embedder, dim) as found:
        search_flags.check_not_empty(found)
        return served_gallery.ServedGallery(
            folder, found, embedder, threshold, search_flags.NEIGHBOURS.value
        )


def host_names() -> list[str]:
    """The names and addresses by which browsers may ask for the page."""
    own = [] if is_local() else [socket.gethostname()]
    names = dict.fromkeys([*_LOCAL, HOST.value, *own, *KNOWN_AS.value])
    return [f"[{name}]" if ":" in name and name[0] != "[" else name for name in names]


def is_local() -> bool:
    """Whether nobody but this machine can reach --host."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(HOST.value).is_loopback
    return HOST.value == "localhost"


def listen(listener: socket.socket) -> None:
    """Begins to listen, and prints the address.

    Raises:
      InputError: another program has taken the port meanwhile.
    """
    with _naming_address():
        listener.listen()
    host = f"[{HOST.value}]" if ":" in HOST.value else HOST.value
    if not is_local():
        print(
            "Everybody who can reach this machine can search the gallery and see its images, by the"
            f" names {', '.join(host_names())}; --known_as adds one."
        )
    address = f"http://{host}:{listener.getsockname()[1]}"
    print(f"listening on {address} (Ctrl-C ends it)", flush=True)


def serve(uvicorn: ModuleType, app: object, listener: socket.socket) -> None:
    """Serves until the program is asked to stop, which is how it ends."""
    try:
        uvicorn.Server(settings(uvicorn, app)).run(sockets=[listener])
    except KeyboardInterrupt as stop:
        print(f"stopped by {stop}")


def settings(uvicorn: ModuleType, app: object) -> Any:
    """The `uvicorn.Config` of an application, which names the parts that uvicorn would choose by
    what is installed."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE,
    )


if __name__ == "__main__":
    command.run(main, again="Run the same command again: the images embedded so far are kept.")
