"""System calls by ctypes: which Python does not have, or which must run beside each other, as ctypes lets go of the interpreter's lock.

Memory is named by its address, so that the kernel writes to it and `memcmp` reads it without Python in between: threads then fault mapped
pages at the same time. Not here: what is read (`operations`), io_uring (`uring`).
"""

import ctypes
import os

PAGE = os.sysconf("SC_PAGE_SIZE")
PROT_READ, PROT_WRITE = 1, 2
SHARED, PRIVATE, ANONYMOUS, POPULATE = 0x01, 0x02, 0x20, 0x8000
ADVICE = {"normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4, "cold": 20, "pageout": 21, "populate": 22}

_libc = ctypes.CDLL(None, use_errno=True)
_address, _size, _offset, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int


def _call(name, result, *arguments):
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, arguments

    def call(*given):
        answer = function(*given)
        if answer is None or answer == -1 or answer == (1 << 64) - 1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    return call


pread = _call("pread64", ctypes.c_ssize_t, _int, _address, _size, _offset)
read = _call("read", ctypes.c_ssize_t, _int, _address, _size)
_preadv = _call("preadv64", ctypes.c_ssize_t, _int, _address, _int, _offset)
_mmap = _call("mmap64", ctypes.c_size_t, _address, _size, _int, _int, _int, _offset)
munmap = _call("munmap", _int, _address, _size)
madvise = _call("madvise", _int, _address, _size, _int)
readahead = _call("readahead", ctypes.c_ssize_t, _int, _offset, _size)
syscall = _call("syscall", ctypes.c_long)

_memcmp = _libc.memcmp
_memcmp.restype, _memcmp.argtypes = _int, (_address, _address, _size)


def same(left, right, length):
    """Whether two places hold the same bytes. Other threads run meanwhile, also where it waits for a page."""
    return length == 0 or _memcmp(left, right, length) == 0


def first_difference(left, right, length):
    """Where two places differ first, found by halving; `length` where they no longer do."""
    start = 0
    while length > 1:
        half = length // 2
        if same(left + start, right + start, half):
            start, length = start + half, length - half
        else:
            length = half
    return start


def map_file(descriptor, offset, length, flags, protection=PROT_READ):
    return _mmap(None, length, protection, flags, descriptor, offset)


def memory(length):
    """Memory that begins with a page."""
    return _mmap(None, length, PROT_READ | PROT_WRITE, PRIVATE | ANONYMOUS, -1, 0)


def preadv(descriptor, address, lengths, offset):
    """One read into several places, which lie one after the other."""
    vectors = (ctypes.c_size_t * (2 * len(lengths)))()
    for number, length in enumerate(lengths):
        vectors[2 * number], vectors[2 * number + 1] = address, length
        address += length
    return _preadv(descriptor, ctypes.addressof(vectors), len(lengths), offset)
