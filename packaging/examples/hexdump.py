#!/usr/bin/python3
"""Shows frames with their bytes and whose they are: ``hexdump.py INTERFACE [COUNT [FILTER...]]``.

An example of the library netmond.capture.
"""

import sys
from datetime import datetime

from netmond import capture


def hexdump(data: bytes) -> None:
    """Sixteen bytes a line, with their place before and what they are in ASCII behind them."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        print(f"{start:08x}  {row.hex(' '):<47}  |{text}|")


def main() -> int:
    interface, count, words = sys.argv[1], int("".join(sys.argv[2:3]) or 10), sys.argv[3:]
    try:
        with capture.open(interface=interface, count=count, filter=" ".join(words)) as frames:
            for frame in frames:
                whose = frame.user or "nobody"
                process = f" {frame.process!r} ({frame.pid})" if frame.process else ""
                moment = datetime.fromtimestamp(frame.time / 1e9).strftime("%H:%M:%S.%f")
                print(f"\n{moment} {frame.direction} {frame.length} bytes of {whose}{process}")
                hexdump(frame.data)
    except capture.CaptureError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main())
