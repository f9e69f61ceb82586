"""Runs one program in a terminal of its own for the scenarios, and draws its screen. In: one JSON object a line, from the scenario's socket, whose address is
the only argument. Out: one JSON object a line: `{"ok": ...}`, or `{"failed": "why"}`. `e2e/src/terminal.rs` is the other side.

The emulation of the terminal is pyte's.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import sys
import termios
import time
from xml.sax.saxutils import escape

import pyte

# Longest wait for one condition, in seconds.
SOON = 60
# Silence of the program after which its screen is a whole one, in seconds: a frame may come in several parts.
WHOLE = 0.1
# Size of a character, and of what is around all of them, in pixels.
WIDTH, HEIGHT, BORDER, TITLE = 8, 18, 14, 30
SIZE = 13
# Colours by pyte's names. Each has a contrast of more than 6 to 1 with the background.
BACKGROUND, BAR = "#14171c", "#262b33"
COLOURS = {
    "default": "#d9dde4",
    "brightblack": "#9aa3b0",
    "green": "#6fd692",
    "brown": "#e3c069",
    "red": "#ff8f86",
    "blue": "#8ab8ff",
    "magenta": "#d6a3ff",
    "cyan": "#74d3d8",
}
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


class DimScreen(pyte.Screen):
    """pyte does not know faint text, so that is grey here."""

    def select_graphic_rendition(self, *attributes, **kwargs):
        super().select_graphic_rendition(*(90 if one == 2 else one for one in attributes), **kwargs)


class Terminal:
    """One program and its screen."""

    def __init__(self):
        self.screen = self.stream = self.child = self.master = None
        # Bytes of the program that are not on the screen yet.
        self.unread = b""
        self.over = False

    def run(self, words, variables, columns, rows):
        """Starts the program. The first of its words is its path."""
        self.screen = DimScreen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.child, self.master = pty.fork()
        if self.child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            # A shell ignores Ctrl-C for what it starts in the background, and its children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(words[0], words, variables)

    def more(self, limit):
        """Reads what the program has written; false where it writes nothing for this long, or has ended."""
        if self.over or not select.select([self.master], [], [], limit)[0]:
            return False
        try:
            read = os.read(self.master, 1 << 16)
        except OSError:  # The other end is closed.
            read = b""
        self.over = not read
        self.unread += read
        return bool(read)

    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def fits(self, patterns):
        text = "\n".join(self.lines())
        return all(re.search(pattern, text) for pattern in patterns)

    def shows(self, patterns):
        """Waits until the screen fits all patterns while the program is silent, and returns its lines."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            while self.more(WHOLE):
                pass
            self.stream.feed(self.unread)
            self.unread = b""
            if self.fits(patterns):
                return self.lines()
            if self.over:
                break
        raise AssertionError(f"the terminal does not show {patterns}")

    def passes(self, patterns):
        """Waits for the first state of a line that is written again and again. The program cannot go on meanwhile."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            first, turn, rest = self.unread.partition(b"\r")
            if turn:
                self.stream.feed(first)
                if self.fits(patterns):
                    self.unread = turn + rest
                    return self.lines()
                self.stream.feed(turn)
                self.unread = rest
            elif not self.more(SOON):
                break
        raise AssertionError(f"the terminal never shows {patterns}")

    def types(self, text):
        os.write(self.master, text.encode())

    def ends(self):
        """Waits for the end of the program, and returns its exit code and the lines of the screen."""
        while self.more(SOON):
            pass
        if not self.over:
            raise AssertionError("the program does not end")
        self.stream.feed(self.unread)
        self.unread = b""
        return [os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]), self.lines()]

    def picture(self, path, title):
        """Draws the screen, without the empty lines at its end."""
        lines = self.lines()
        while lines and not lines[-1]:
            lines.pop()
        width = self.screen.columns * WIDTH + 2 * BORDER
        height = len(lines) * HEIGHT + TITLE + 2 * BORDER
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FONTS}" font-size="{SIZE}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{BAR}"/>',
            f'<path d="M0 {TITLE}h{width}v{height - TITLE - 8}a8 8 0 0 1 -8 8h{16 - width}a8 8 0 0 1 -8 -8z" fill="{BACKGROUND}"/>',
            f'<text x="{width / 2:g}" y="{TITLE - 10}" text-anchor="middle" fill="{COLOURS["brightblack"]}">{escape(title)}</text>',
        ]
        for row in range(len(lines)):
            parts.extend(self.words(row))
        with open(path, "w", encoding="utf-8") as picture:
            picture.write("\n".join(parts) + "\n</svg>\n")

    def words(self, row):
        """The texts of a row: what is in one style, and has no gap. Each has its width said, so every font keeps the columns."""
        y = TITLE + BORDER + row * HEIGHT + 13
        cells = [self.screen.buffer[row][column] for column in range(self.screen.columns)]
        column = 0
        while column < len(cells):
            start, style = column, (cells[column].fg, cells[column].bold)
            while column < len(cells) and (cells[column].fg, cells[column].bold) == style:
                column += 1
            text = "".join(cell.data for cell in cells[start:column])
            for found in re.finditer(r"\S+(?: \S+)*", text):
                x, length = BORDER + (start + found.start()) * WIDTH, len(found.group()) * WIDTH
                weight = ' font-weight="bold"' if style[1] else ""
                yield (
                    f'<text x="{x}" y="{y}" fill="{COLOURS.get(style[0], COLOURS["default"])}"{weight} textLength="{length}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(found.group())}</text>'
                )


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        terminal = Terminal()
        for line in connection.makefile("r", encoding="utf-8"):
            order = json.loads(line)
            try:
                answer = {"ok": getattr(terminal, order[0])(*order[1:])}
            except Exception as error:  # The scenario decides: every failure is its own.
                shown = "\n".join(terminal.lines()).rstrip() if terminal.screen else ""
                answer = {"failed": f"{error}\nthe screen:\n{shown}"}
            connection.sendall((json.dumps(answer) + "\n").encode())


main()
