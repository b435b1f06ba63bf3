"""A small io_uring: reads given to the kernel several at a time, and waited for. Not here: what they should give (`operations`)."""

import ctypes
import mmap
import os
import struct

from . import system

SETUP, ENTER = 425, 426  # the same numbers on every machine
WAIT = 1
READ = 22
ASYNC = 1 << 4
SQ_RING, CQ_RING, ENTRIES = 0, 0x8000000, 0x10000000
ENTRY = struct.Struct("=BBHiQQIIQ24x")
DONE = struct.Struct("=QiI")


class Ring:
    """Raises OSError where the kernel has no io_uring, or does not let this process use it."""

    def __init__(self, entries=16):
        params = (ctypes.c_uint32 * 30)()
        self.descriptor = system.syscall(ctypes.c_long(SETUP), ctypes.c_long(entries), ctypes.byref(params))
        sq, cq = params[10:20], params[20:30]
        self.slots = params[0]
        flags = (mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.submissions = mmap.mmap(self.descriptor, sq[6] + 4 * params[0], *flags, offset=SQ_RING)
        self.completions = mmap.mmap(self.descriptor, cq[5] + 16 * params[1], *flags, offset=CQ_RING)
        self.entries = mmap.mmap(self.descriptor, 64 * params[0], *flags, offset=ENTRIES)
        self.tail, self.mask, self.array = self._numbers(self.submissions, sq[1], sq[2], sq[6])
        self.done_head, self.done_tail, self.done_mask = self._numbers(self.completions, cq[0], cq[1], cq[2])
        self.done = cq[5]

    @staticmethod
    def _numbers(memory, *offsets):
        return [ctypes.c_uint32.from_buffer(memory, offset) for offset in offsets]

    def read(self, requests, flags=0):
        """The answers to `(descriptor, address, length, offset)`, in the same order: counts, or errno below zero."""
        tail, mask = self.tail.value, self.mask.value
        array = (ctypes.c_uint32 * self.slots).from_buffer(self.submissions, ctypes.addressof(self.array) - self._base())
        for number, (descriptor, address, length, offset) in enumerate(requests):
            slot = (tail + number) & mask
            ENTRY.pack_into(self.entries, 64 * slot, READ, flags, 0, descriptor, offset, address, length, 0, number)
            array[slot] = slot
        # The system call below is the barrier between these writes and the kernel.
        self.tail.value = (tail + len(requests)) & 0xFFFFFFFF
        waiting, answers = len(requests), {}
        submit = len(requests)
        while waiting:
            long = ctypes.c_long
            submit -= system.syscall(long(ENTER), long(self.descriptor), long(submit), long(1), long(WAIT), None, long(0))
            head = self.done_head.value
            while head != self.done_tail.value:
                number, result, _ = DONE.unpack_from(self.completions, self.done + 16 * (head & self.done_mask.value))
                answers[number], head, waiting = result, (head + 1) & 0xFFFFFFFF, waiting - 1
            self.done_head.value = head
        return [answers[number] for number in range(len(requests))]

    def _base(self):
        return ctypes.addressof(ctypes.c_char.from_buffer(self.submissions))

    def close(self):
        os.close(self.descriptor)
