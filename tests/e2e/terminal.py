"""Runs a program in a terminal of its own: keys from stdin, the screen to stdout as it is drawn.

The byte 0x00 on stdin makes the terminal small. Ends with the program's exit code.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios

LARGE, SMALL = (40, 160), (3, 20)


def resize(fd, size):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def main():
    pid, fd = pty.fork()
    if pid == 0:
        resize(0, LARGE)
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.argv[1], sys.argv[1:])
    open_fds = [fd, 0]
    while True:
        ready, _, _ = select.select(open_fds, [], [])
        if 0 in ready:
            keys = os.read(0, 100)
            if not keys:
                open_fds.remove(0)
                os.kill(pid, signal.SIGKILL)
            elif keys == b"\0":
                resize(fd, SMALL)
            else:
                os.write(fd, keys)
        if fd in ready:
            try:
                screen = os.read(fd, 65536)
            except OSError:
                break
            os.write(1, screen)
    _, status = os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
