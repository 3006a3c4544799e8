"""What stands after each event of a trace: written from docs/events.md alone."""

MASK64 = (1 << 64) - 1


def fnv(numbers):
    """64-bit FNV-1a over numbers, each as 8 bytes with the least first; 16 hex digits."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            value = (value ^ byte) * 0x100000001B3 & MASK64
    return f"{value:016x}"


class State:
    """Committed ids, and the open block with its start."""

    def __init__(self):
        self.header = None
        self.pieces = {}
        self.given = []
        self.ids = []
        self.start = None
        self.open = None
        self.events = []

    def hash(self):
        block = [] if self.open is None else [self.start | 1 << 63, *self.open]
        return fnv([*self.ids, *block])

    def apply(self, line):
        """Applies a line of a trace, and holds what stands to the hash that the line tells."""
        if "bd3_trace" in line:
            assert line["bd3_trace"] == 1 and self.header is None, line
            self.header = line
        elif "piece" in line:
            self.pieces[line["piece"]] = bytes(line["bytes"]) if "bytes" in line else line["text"].encode()
        else:
            getattr(self, line["event"])(line)
            self.events.append(line)
            assert self.hash() == line["state"], f"another state after {line}"

    def started(self, line):
        self.given = line["prompt"]
        mask = self.header["mask"]
        self.ids = self.given[: self.given.index(mask)] if mask in self.given else list(self.given)

    def block_opened(self, line):
        self.start, self.open = line["start"], list(line["ids"])

    def edited(self, line):
        for edit in line["edits"]:
            row, kind = edit["position"] - self.start, edit["kind"]
            if kind == "insert":
                self.open.insert(row, edit["new"])
                self.open.pop()
            elif kind == "delete":
                del self.open[row]
                self.open.append(self.header["mask"])
            else:
                assert self.open[row] == edit["old"], edit
                self.open[row] = edit["new"]

    def block_committed(self, line):
        assert line["ids"] == self.open, line
        self.ids = self.ids[: line["start"]] + line["ids"]
        self.open = None

    def retracted(self, line):
        assert self.ids[line["start"] :] == line["ids"], line
        self.ids = self.ids[: line["start"]]

    def finished(self, line):
        if line["length"] > len(self.ids):
            self.ids = self.ids[: self.start] + self.open[: line["length"] - self.start]
        self.ids, self.open = self.ids[: line["length"]], None

    def text(self, begin=0):
        """The text of the ids from `begin` on."""
        return b"".join(self.pieces[id] for id in self.ids[begin:]).decode(errors="replace")
