"""PyTorch's answers ahead of time: a forked process runs the network on one core while this one traces it on another.

Tracing is Python code and takes one core for seconds. The network itself cannot run beside it in a thread, since tracing changes
what modules do in the whole process. A fork has the loaded network as it is, whatever code it came from. It runs the images of
verification one piece after another and leaves the answers in a file. Whoever asks the network later, on the same values, gets
what is there, and the network's answer otherwise: nothing rests on the fork, which may fail, hang or be slow.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.export.network.network import Network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.verification.expected import EXACT, at_once
from mtl_deploy.export.verification.images import (
    VerificationImages,
    images_of_another_size,
    stress_images,
    verification_images,
)
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.console.interrupts import WATCHER

if TYPE_CHECKING:
    import torch

    from mtl_deploy.export.network.inputs import Images
    from mtl_deploy.export.verification.reach import Question

Outputs = Mapping[str, "torch.Tensor"]

_MOST = 1 << 30  # bytes of answers in the file
_PATIENCE = 2.0  # times as long as a piece took before: so long the one that is being computed is waited for
_LOOK = 0.02  # seconds between two looks for it
_LONGEST = 60.0  # seconds that the answer to a question is waited for
_ALL, _QUESTION = b"all images", b"question"  # keys of records
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@contextlib.contextmanager
def ahead_of_time(network: Network, options: Options) -> Iterator[Network | Ahead]:
    """Yield the network, answering from what a fork has computed meanwhile; the network itself where there is no fork.

    Once it has run all images, the fork answers a question, if it is asked one.

    There is none on other systems than Linux, with one core or thread, after CUDA has started, beside other threads (but for the
    one that waits for signals), and for graphs, which ONNX Runtime runs.
    """
    if not _is_possible(network, options):
        yield network
        return
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as questions, _pipe() as (listening, asking):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # Python 3.12 warns of any thread; PyTorch's are idle
                child = os.fork()
        except OSError:
            yield network
            return
        if child == 0:
            os.close(asking)
            _in_the_fork(network, options, file, questions, listening)
        ahead = Ahead(network, child, file, questions, asking)
        try:
            yield ahead
        finally:
            ahead.stop()


def _is_possible(network: Network, options: Options) -> bool:
    import torch

    return (
        sys.platform == "linux"
        and options.threads != 1
        and len(os.sched_getaffinity(0)) > 1
        and network.loaded.given is None
        and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        and all(each is threading.main_thread() or each.name == WATCHER for each in threading.enumerate())
    )


class Ahead:
    """A network that answers from what its fork has computed.

    Args:
        network: answers everything else.
        child: the fork's process.
        file: where it leaves its answers, one pickle after another: a piece's key with None when it begins, with the answers and
            the seconds that they took when it ends.
        questions: a file for a question to it.
        asking: a pipe that tells it how long the question is.
    """

    def __init__(self, network: Network, child: int, file: IO[bytes], questions: IO[bytes], asking: int) -> None:
        self._network, self._child, self._file = network, child, file
        self._questions, self._asking = questions, asking
        self._done: dict[bytes, Any] = {}
        self._begun: bytes | None = None
        self._seconds = 0.0
        self._place = 0
        self.found = 0
        """How many answers came from the fork."""

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Return what the network answers, as :class:`~mtl_deploy.export.network.network.Network` does."""
        found = self._found(images)
        return self._network(images) if found is None else found

    @property
    def in_float64(self) -> Any:
        """The same network for ``float64`` tensors; None if it does not run in double precision."""
        self._read()
        if b"float64" not in self._done:
            return self._network.in_float64

        def answer(images: torch.Tensor) -> Outputs:
            found = self._found(images)
            if found is None:
                assert self._network.in_float64 is not None  # it ran in the fork
                found = self._network.in_float64(images)
            return found

        return answer

    @property
    def exact_images(self) -> int | None:
        """As the network's."""
        return self._network.exact_images

    def images(self, batch: int | None) -> VerificationImages | None:
        """Return the images of verification for a network that takes this batch alone (None: any), if the fork has read them."""
        self._read()
        found: VerificationImages | None = self._done.get(_images_key(batch))
        return found

    @property
    def is_done(self) -> bool:
        """Whether the fork has run all images."""
        self._read()
        return _ALL in self._done

    def ask(self, question: Question) -> None:
        """Let the fork find the answer to a question; only one is asked."""
        if self._child:
            content = pickle.dumps(question, protocol=5)
            self._questions.write(content)
            self._questions.flush()
            with contextlib.suppress(BrokenPipeError):
                os.write(self._asking, len(content).to_bytes(8, "little"))

    def answer(self, question: Question) -> list[str]:
        """Return the answer to a question: the fork's, if it was asked and has begun with it, otherwise found here."""
        self._read()
        started = time.monotonic()
        while self._begun == _QUESTION and _QUESTION not in self._done and self._child:
            if time.monotonic() - started > _LONGEST or os.waitpid(self._child, os.WNOHANG)[0]:
                self.stop()
            time.sleep(_LOOK)
            self._read()
        if _QUESTION not in self._done:
            self.stop()
            return question.answer(self._network)
        found: list[str] = self._done[_QUESTION]
        return found

    def stop(self) -> None:
        """End the fork."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = 0

    def _found(self, images: torch.Tensor) -> Outputs | None:
        import torch

        key = _key(images)
        self._read()
        started = time.monotonic()
        while key == self._begun and key not in self._done and self._child:
            if time.monotonic() - started > _PATIENCE * self._seconds:
                break
            if os.waitpid(self._child, os.WNOHANG)[0]:
                self._child = 0
            time.sleep(_LOOK)
            self._read()
        if key not in self._done:
            self.stop()  # from here on, the cores are needed here
            return None
        self.found += 1
        return {name: torch.from_numpy(array) for name, array in self._done[key].items()}

    def _read(self) -> None:
        """Read what the fork has left since the last time; the last record may not be complete yet."""
        while not self._file.closed:
            content = os.pread(self._file.fileno(), 8, self._place)
            size = int.from_bytes(content, "little")
            if len(content) < 8 or os.fstat(self._file.fileno()).st_size < self._place + 8 + size:
                return
            key, answers, seconds = pickle.loads(_pread(self._file.fileno(), size, self._place + 8))
            self._place += 8 + size
            if answers is None:
                self._begun = key
            else:
                self._done[key] = answers
                self._seconds = max(self._seconds, seconds)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def _in_the_fork(network: Network, options: Options, file: IO[bytes], questions: IO[bytes], listening: int) -> None:
    """Answer piece after piece, then a question, and end the process without any tidying up of the parent's things."""
    try:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # the parent ends this process
        if (wakeup := signal.set_wakeup_fd(-1)) >= 0:
            os.close(wakeup)  # the parent's watcher waits until nobody has it
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        import torch

        torch.set_num_threads(1)  # the threads of the parent's pool do not exist here
        for piece in _pieces(network, options, file):
            _answer(network, piece, file)
        _leave(file, (_ALL, {}, 0.0))
        size = int.from_bytes(os.read(listening, 8), "little")
        question: Question = pickle.loads(_pread(questions.fileno(), size, 0))
        _leave(file, (_QUESTION, None, 0.0))
        _leave(file, (_QUESTION, question.find(network), 0.0))
    except BaseException:  # noqa: BLE001 - the network's own code runs here; the parent asks it again
        pass
    finally:
        os._exit(0)


def _answer(network: Network, piece: torch.Tensor, file: IO[bytes]) -> None:
    import torch

    forward: Any = network
    double = piece.dtype == torch.float64
    if double:
        forward = network.in_float64
        if forward is None:
            os._exit(0)
    key = _key(piece)
    _leave(file, (key, None, 0.0))
    started = time.monotonic()
    with torch.inference_mode():
        answers = {name: value.numpy() for name, value in forward(piece).items()}
    _leave(file, (key, answers, time.monotonic() - started))
    if double:
        _leave(file, (b"float64", {}, 0.0))


def _pieces(network: Network, options: Options, file: IO[bytes]) -> Iterator[torch.Tensor]:
    """Return what the network will be asked for, in the order in which it will."""
    preprocessing, batch = network.preprocessing, network.batch
    size = at_once(Signature(network.tasks, preprocessing, options.outputs), batch)
    given = verification_images(options, preprocessing, batch)
    _leave(file, (_images_key(batch), given, 0.0))
    sets: list[tuple[Images, bool]] = [(given.array, True)]
    if preprocessing.multiple:
        sets.append((images_of_another_size(preprocessing, batch), True))
    sets.append((stress_images(preprocessing, batch), False))
    for images, exactly in sets:
        for start in range(0, len(images), size):
            yield network_input(images[start : start + size], preprocessing)
        if exactly:
            for start in range(0, min(len(images), -(-EXACT // (batch or 1)) * (batch or 1)), size):
                yield network_input(
                    images[start : start + size][: EXACT - start if batch is None else size], preprocessing, double=True
                )


def _images_key(batch: int | None) -> bytes:
    return f"images for batches of {batch}".encode()


def _key(images: torch.Tensor) -> bytes:
    array = images.contiguous().numpy()
    return hashlib.blake2b(array.data, digest_size=16, person=f"{array.dtype}{array.shape}".encode()[:16]).digest()


def _leave(file: IO[bytes], record: Any) -> None:
    content = pickle.dumps(record, protocol=5)
    written = len(content).to_bytes(8, "little") + content
    if os.fstat(file.fileno()).st_size + len(written) > _MOST:
        os._exit(0)
    while written:
        written = written[os.write(file.fileno(), written) :]


def _pread(number: int, size: int, place: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        pieces += os.pread(number, size - len(pieces), place + len(pieces))
    return bytes(pieces)
