"""What libpcap itself says of a frame: pcap_compile(3PCAP), pcap_offline_filter(3PCAP), bpf_filter()."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint, c_uint8, c_uint16, c_uint32, c_void_p

_DLT = {1: 1, 101: 12}  # LINKTYPE_ETHERNET, LINKTYPE_RAW


class _Step(ctypes.Structure):
    _fields_ = (("code", c_uint16), ("jt", c_uint8), ("jf", c_uint8), ("k", c_uint32))


class _Steps(ctypes.Structure):
    _fields_ = (("length", c_uint), ("steps", POINTER(_Step)))


class _PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_ = (("seconds", c_long), ("micros", c_long), ("captured", c_uint32), ("length", c_uint32))


_pcap = ctypes.CDLL("libpcap.so.0.8")
_pcap.pcap_open_dead.restype = c_void_p
_pcap.pcap_geterr.argtypes, _pcap.pcap_geterr.restype = [c_void_p], c_char_p
_pcap.pcap_compile.argtypes = [c_void_p, POINTER(_Steps), c_char_p, c_int, c_uint32]
_pcap.pcap_offline_filter.argtypes = [c_void_p, c_void_p, c_char_p]
_pcap.pcap_close.argtypes = [c_void_p]
_pcap.bpf_filter.argtypes = [c_void_p, c_char_p, c_uint, c_uint]
_pcap.bpf_filter.restype = c_uint


class Judge:
    """One expression."""

    def __init__(self, expression: str, linktype: int = 1) -> None:
        handle = _pcap.pcap_open_dead(_DLT[linktype], 262_144)
        self._program = _Steps()
        failed = _pcap.pcap_compile(handle, byref(self._program), expression.encode(), 1, 0xFFFFFFFF)
        said = _pcap.pcap_geterr(handle).decode()
        _pcap.pcap_close(handle)
        if failed:
            raise ValueError(f"{expression}: {said}")
        self._pointer = byref(self._program)
        self._header = _PacketHeader()
        self._header_pointer = byref(self._header)

    def judge(self, frame: bytes) -> bool:
        """Whether the expression takes the frame."""
        self._header.captured = self._header.length = len(frame)
        return bool(_pcap.pcap_offline_filter(self._pointer, self._header_pointer, frame))


def interpret(program: Sequence[tuple[int, int, int, int]], frame: bytes) -> bool:
    """What libpcap's interpreter makes of a program that was written by hand."""
    steps = (_Step * len(program))(*(_Step(*each) for each in program))
    return bool(_pcap.bpf_filter(steps, frame, len(frame), len(frame)))
