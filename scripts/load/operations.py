"""The ways to read a file, one function each. A reader does one after the other, and each checks what it got.

Not here: which one is next (`reader`), processes and threads (`crowd`).
"""

import errno
import os

from . import system, uring
from .subject import MIB, Wrong, some_length
from .system import PAGE, POPULATE, PRIVATE, PROT_READ, PROT_WRITE, SHARED

# What a kernel or a file system under the copy may refuse without being wrong.
REFUSALS = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS)


class Refused(Exception):
    """The kernel does not have this way, or not here."""


def kinds():
    """{name: (function, weight)}; the weights make cheap ones frequent."""
    return {name.replace("_", "-"): (function, weight) for name, (function, weight) in _KINDS.items()}


_KINDS = {}


def kind(weight):
    def add(function):
        _KINDS[function.__name__] = (function, weight)
        return function

    return add


@kind(300)
def pread(me, file):
    offset, length = me.place(file)
    skew = int(me.random() * 64) if me.random() < 0.5 else 0
    got = system.pread(me.handle(file), me.room + skew, length, offset)
    file.check(me.room + skew, got, offset, length)


@kind(60)
def seek_and_read(me, file):
    """Several reads on, as loaders do: what comes next may have been gathered already."""
    handle = me.own(file)
    offset, length = me.place(file)
    if me.random() < 0.1:
        length = MIB
    os.lseek(handle, offset, os.SEEK_SET)
    for _ in range(1 + int(me.random() * 4)):
        got = system.read(handle, me.room, length)
        file.check(me.room, got, offset, length)
        offset += got


@kind(60)
def preadv(me, file):
    offset, _ = me.place(file)
    lengths = [some_length(me.random, MIB) for _ in range(1 + int(me.random() * 5))]
    lengths = lengths if sum(lengths) <= me.ROOM else lengths[:1]
    got = system.preadv(me.handle(file), me.room, lengths, offset)
    file.check(me.room, got, offset, sum(lengths))


@kind(60)
def shared_mapping(me, file):
    map_and_check(me, file, SHARED)


@kind(60)
def private_mapping(me, file):
    map_and_check(me, file, PRIVATE)


@kind(20)
def mapping_after_close(me, file):
    descriptor = os.open(file.path, os.O_RDONLY)
    try:
        at = me.mapped(file, descriptor, SHARED if me.random() < 0.5 else PRIVATE)
    finally:
        os.close(descriptor)
    check_mapping(me, file, at)


@kind(300)
def kept_mapping(me, file):
    """A mapping that stays while others come and go."""
    file, start, _, address = kept = me.kept_mapping(file)
    offset, length = within(me, kept)
    file.check_bytes(address + offset - start, offset, length)


@kind(40)
def advised_mapping(me, file):
    file, start, length, address = kept = me.kept_mapping(file)
    names = list(system.ADVICE)
    advice = system.ADVICE[names[int(me.random() * len(names))]]
    try:
        system.madvise(address, min(length, some_length(me.random, MIB)), advice)
    except OSError as error:
        # Older kernels do not know all of them.
        if error.errno != errno.EINVAL:
            raise
    offset, length = within(me, kept)
    file.check_bytes(address + offset - start, offset, length)


@kind(20)
def written_private_mapping(me, file):
    """Reading a file into a private mapping of itself: the request for its page comes in the middle of the other."""
    start, length, address = me.mapped(file, me.handle(file), PRIVATE, PROT_READ | PROT_WRITE)
    try:
        offset, count = file.somewhere(me.random), min(length, 2 * MIB)
        got = system.pread(me.handle(file), address, count, offset)
        file.check(address, got, offset, count)
    finally:
        system.munmap(address, length)
    got = system.pread(me.handle(file), me.room, min(length, MIB), start)
    file.check(me.room, got, start, min(length, MIB))


@kind(40)
def fadvise(me, file):
    offset, length = me.place(file)
    advice = (os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM, os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_NORMAL)
    os.posix_fadvise(me.handle(file), offset, length, advice[int(me.random() * len(advice))])
    pread(me, file)


@kind(40)
def readahead(me, file):
    offset, length = me.place(file)
    system.readahead(me.handle(file), offset, length)
    got = system.pread(me.handle(file), me.room, length, offset)
    file.check(me.room, got, offset, length)


@kind(60)
def direct_aligned(me, file):
    offset, length = me.place(file)
    offset, length = offset // PAGE * PAGE, -(-length // PAGE) * PAGE
    got = system.pread(me.direct(file), me.room, length, offset)
    file.check(me.room, got, offset, length)


@kind(40)
def direct_odd(me, file):
    """Offset, length and memory that no disk would take; that is an answer too."""
    offset, length = me.place(file)
    skew = int(me.random() * 513)
    try:
        got = system.pread(me.direct(file), me.room + skew, length, offset)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise Refused from None
        raise
    file.check(me.room + skew, got, offset, length)


@kind(30)
def splice(me, file):
    offset, length = me.place(file)
    done = 0
    while done < length:
        moved = os.splice(me.handle(file), me.pipe()[1], min(length - done, 65536), offset_src=offset + done)
        if moved == 0:
            break
        taken = 0
        while taken < moved:
            taken += system.read(me.pipe()[0], me.room + done + taken, moved - taken)
        done += moved
    file.check(me.room, done, offset, length)


@kind(30)
def sendfile(me, file):
    copy_out(me, file, lambda handle, offset, length: os.sendfile(me.target(), handle, offset, length))


@kind(30)
def copy_file_range(me, file):
    """Into a file in memory; between file systems most kernels refuse it."""
    copy_out(me, file, lambda handle, offset, length: os.copy_file_range(handle, me.target(), length, offset))


@kind(40)
def io_uring(me, file):
    """Several reads at once, of several files."""
    ring, requests, places = me.ring(), [], []
    others = [file, *(me.file() for _ in range(me.MOST_HANDLES - 1))]
    for number in range(1 + int(me.random() * 8)):
        other = others[int(me.random() * len(others))]
        offset = other.somewhere(me.random)
        if me.random() < 0.2:
            handle, offset, length = me.direct(other), offset // PAGE * PAGE, PAGE << int(me.random() * 7)
        else:
            handle, length = me.handle(other), some_length(me.random, me.ROOM // 8)
        address = me.room + number * (me.ROOM // 8)
        requests.append((handle, address, length, offset))
        places.append((other, address, offset, length))
    for result, (other, address, offset, length) in zip(ring.read(requests, uring.ASYNC if me.random() < 0.3 else 0), places):
        if result < 0:
            raise Wrong(f"{other.name} at {offset}+{length}: {os.strerror(-result)}")
        other.check(address, result, offset, length)


@kind(10)
def reopen(me, file):
    """Also as the first of a file after nobody had it open, which may choose another way to serve it; and of one for which others must go."""
    for other in me.files if me.random() < 0.3 else (file,):
        me.forget(other)
    pread(me, file)


@kind(10)
def size(me, file):
    handle = me.own(file)
    found = (os.fstat(handle).st_size, os.lseek(handle, 0, os.SEEK_END), os.stat(file.path).st_size)
    if found != (file.size,) * 3:
        raise Wrong(f"{file.name}: sizes {found} instead of {file.size}")
    if file.size and (os.lseek(handle, 0, os.SEEK_DATA), os.lseek(handle, 0, os.SEEK_HOLE)) != (0, file.size):
        raise Wrong(f"{file.name}: holes")


@kind(1)
def whole(me, file):
    """From front to back, a mebibyte at a time."""
    handle, offset = me.handle(file), 0
    while offset < file.size:
        got = system.pread(handle, me.room, MIB, offset)
        file.check(me.room, got, offset, MIB)
        offset += got


@kind(1)
def warm(me, file):
    """Asks the mount to make the file ready for the kernel, as `ckpt-fs warmup` does."""
    me.forget(file)
    os.getxattr(file.path, "user.ckpt-fs.warm")
    pread(me, file)


@kind(0)
def drop_caches(me, file):
    """Of the whole machine, so only where it is asked for."""
    with open("/proc/sys/vm/drop_caches", "w") as door:
        door.write("123"[int(me.random() * 3)])
    pread(me, file)


def map_and_check(me, file, flags):
    check_mapping(me, file, me.mapped(file, me.handle(file), flags | (POPULATE if me.random() < 0.1 else 0)))


def check_mapping(me, file, mapping):
    """At random places, or all of it; what is past the end in the last page is zero."""
    start, length, address = mapping
    try:
        if me.random() < 0.2:
            file.check_bytes(address, start, length if me.random() < 0.1 else min(length, 2 * MIB))
        for _ in range(4):
            offset, count = within(me, (file, *mapping))
            file.check_bytes(address + offset - start, offset, count)
        rest = -length % PAGE
        if start + length == file.size and not system.same(address + length, me.zeros, rest):
            raise Wrong(f"{file.name}: bytes after the end")
    finally:
        system.munmap(address, length)


def within(me, mapping):
    """A place in a mapping."""
    _, start, length, _ = mapping
    offset = int(me.random() * length)
    if me.random() < 0.3:
        offset = offset // PAGE * PAGE
    return start + offset, min(some_length(me.random, MIB), length - offset)


def copy_out(me, file, move):
    offset, length = me.place(file)
    os.ftruncate(me.target(), 0)
    os.lseek(me.target(), 0, os.SEEK_SET)
    done = 0
    while done < length:
        try:
            moved = move(me.handle(file), offset + done, length - done)
        except OSError as error:
            if error.errno in REFUSALS:
                raise Refused from None
            raise
        if moved == 0:
            break
        done += moved
    got = system.pread(me.target(), me.room, done, 0) if done else 0
    file.check(me.room, got, offset, length)
