"""A command on a terminal, as an animated SVG: how docs/canvas.svg, docs/race.svg and docs/constrain.svg are made.

    pip install pyte
    python docs/bench/record.py docs/canvas.svg --size 76x12 -- bd3 sample -p 'Once upon a time' --block 32 --seed 1 -n 90
    python docs/bench/record.py docs/race.svg --size 110x16 --every 0.4 -- \\
        bd3 sample --race --block 8 --rule threshold --threshold 0.8 -n 120 --seed 3
    python docs/bench/record.py docs/constrain.svg --size 110x9 -- bd3 sample -p 'Once upon a time, there was a' \\
        --regex ' [a-z]+ (cat|dog|fox) named [A-Z][a-z]+\\.( [A-Z][a-z ,]+\\.){2}' --block 32 --seed 2

The command runs on a pseudo-terminal of that size; what its screen shows is kept line by line. --every keeps one look in so many
seconds, so that long recordings stay small."""

import argparse
import fcntl
import os
import pty
import select
import shlex
import struct
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

CHAR, LINE, LEFT, TOP = 8.4, 20, 16, 50
FAINT = "#9aa2ab"
COLOURS = {"red": "#cf222e", "green": "#1a7f37", "brown": "#9a6700", "blue": "#0969da", "magenta": "#8250df", "cyan": "#1b7c83",
           "brightblack": FAINT, "faint": FAINT}
PLAIN = "#1f2328"


class Screen(pyte.Screen):
    """A screen that knows faint text, which pyte does not: as italics, which bd3 does not write."""

    def select_graphic_rendition(self, *codes, **kwargs):
        # Colours of their own (38 and 48) take numbers that mean no style.
        if not {38, 48} & set(codes):
            codes = [other for code in codes for other in {2: (3,), 22: (22, 23)}.get(code, (code,))]
        super().select_graphic_rendition(*codes, **kwargs)


def look(screen):
    """Each line as pieces of one style: (first column, text, colour, struck, bold)."""
    lines = []
    for y in range(screen.lines):
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        style = lambda x: ("faint" if cells[x].italics else cells[x].fg, cells[x].strikethrough, cells[x].bold)
        pieces = [(list(xs), key) for key, xs in groupby(range(screen.columns), style)]
        pieces = [(xs[0], "".join(cells[x].data for x in xs), *key) for xs, key in pieces]
        lines.append(tuple(piece for piece in pieces if piece[1].strip()))
    return lines


def record(command, columns, rows, every, longest):
    """Looks at the screen: (seconds, lines)."""
    screen = Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(columns), LINES=str(rows))
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    looks, start = [], time.time()
    while time.time() - start < longest:
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            stream.feed(data)
            # What asks where the cursor is gets an answer.
            if b"\x1b[6n" in data:
                os.write(terminal, f"\x1b[{screen.cursor.y + 1};{screen.cursor.x + 1}R".encode())
        now, lines = time.time() - start, look(screen)
        if any(lines) and (not looks or (lines != looks[-1][1] and now - looks[-1][0] >= every)):
            looks.append((now, lines))
    if not looks:
        raise SystemExit("error: the command showed nothing")
    if looks[-1][1] != look(screen) and any(look(screen)):
        looks.append((time.time() - start, look(screen)))
    return looks


def text(pieces, y, inside=""):
    spans = []
    for x, words, colour, struck, bold in pieces:
        style = f" fill='{COLOURS.get(colour, PLAIN)}'" if colour in COLOURS else ""
        style += " text-decoration='line-through'" if struck else ""
        style += " font-weight='bold'" if bold else ""
        words = words.rstrip()
        spans.append(f"<tspan x='{LEFT + x * CHAR:.1f}' textLength='{len(words) * CHAR:.1f}'{style}>{escape(words)}</tspan>")
    return f"<text y='{y}'>{''.join(spans)}{inside}</text>"


def animated(looks, line, end):
    """What a line shows, each state in its time."""
    states = [[looks[0][0], looks[0][1][line]]]
    for seconds, lines in looks[1:]:
        if lines[line] != states[-1][1]:
            states.append([seconds, lines[line]])
    states[0][0] = 0.0
    y = TOP + line * LINE
    if len(states) == 1:
        return [text(states[0][1], y)] if states[0][1] else []
    parts = []
    for i, (begin, pieces) in enumerate(states):
        if pieces:
            until = states[i + 1][0] if i + 1 < len(states) else end
            keys = [(0.0, "hidden"), (begin / end, "visible"), (until / end, "hidden")]
            keys = keys[1:] if begin == 0 else keys
            keys = keys[:-1] if until == end else keys
            times, values = ";".join(f"{t:.4f}" for t, _ in keys), ";".join(v for _, v in keys)
            inside = (f"<animate attributeName='visibility' calcMode='discrete' dur='{end:.2f}s' repeatCount='indefinite' "
                      f"keyTimes='{times}' values='{values}'/>")
            # Viewers without animation show the end.
            parts.append(f"<g visibility='{'visible' if until == end else 'hidden'}'>{text(pieces, y)}{inside}</g>")
    return parts


def draw(looks, command, columns, hold):
    begin = looks[0][0]
    looks = [(seconds - begin, lines) for seconds, lines in looks]
    end = looks[-1][0] + hold
    used = max(i + 1 for _, lines in looks for i, line in enumerate(lines) if line)
    width, height = 2 * LEFT + columns * CHAR, TOP + used * LINE
    head = " ".join(shlex.quote(word) for word in command)
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height}' width='{width:.0f}' height='{height}' "
             f"font-family='ui-monospace,SFMono-Regular,Menlo,Consolas,monospace' font-size='14' fill='{PLAIN}'>",
             "<style>text{white-space:pre}</style>",
             f"<rect width='{width:.0f}' height='{height}' rx='8' fill='#f6f8fa' stroke='#d0d7de'/>",
             f"<text x='{LEFT}' y='28' fill='{FAINT}'>$ {escape(head)}</text>"]
    for line in range(used):
        parts += animated(looks, line, end)
    return "\n".join(parts) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="80x24", help="columns x rows")
    parser.add_argument("--every", default=0.0, type=float, help="seconds between two looks, at least")
    parser.add_argument("--hold", default=2.0, type=float, help="seconds that the end is shown")
    parser.add_argument("--longest", default=60.0, type=float, help="seconds until the recording ends, whatever runs")
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args()
    columns, rows = map(int, args.size.split("x"))
    looks = record(args.command, columns, rows, args.every, args.longest)
    args.out.write_text(draw(looks, args.command, columns, args.hold))


if __name__ == "__main__":
    main()
