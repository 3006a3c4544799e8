#!/usr/bin/env python3
"""What sharing passes gives: tokens/s of one request and of eight at once, and how long a short request waits for its first block behind
seven long ones. A model of 134 million random numbers at Q8_0 (speed does not depend on what they say), or any other.

    python docs/bench/serve.py [--model MODEL] [--blocks 1,4] [--rounds 5]

One round measures everything once, in turn, so that a machine that changes its pace changes it for all; ratios are medians over rounds.
"""
import argparse
import http.client
import json
import math
import pathlib
import random
import re
import shutil
import statistics
import struct
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "models/tiny"
WIDTH, LAYERS, HEADS, VOCAB, LENGTH = 768, 12, 12, 32768, 1024


def shapes():
    """Names and shapes of the tensors, as the small model has them, at this width."""
    raw = (TINY / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    small = json.loads(raw[8 : 8 + size])
    wide = {192: WIDTH, 384: 2 * WIDTH, 576: 3 * WIDTH, 768: 4 * WIDTH, 1152: 6 * WIDTH, 4096: VOCAB}
    for name, entry in small.items():
        if name == "__metadata__" or ".blocks." in name and not ".blocks.0." in name:
            continue
        shape = [WIDTH // HEADS // 2] if name.endswith("inv_freq") else [wide.get(n, n) for n in entry["shape"]]
        values = raw[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]]
        for layer in range(LAYERS) if ".blocks.0." in name else [0]:
            yield name.replace(".blocks.0.", f".blocks.{layer}."), shape, values


def random_model(folder):
    """A folder with the small model's description and tokenizer, and random tensors in F16."""
    config = json.loads((TINY / "config.json").read_text())
    config |= {"hidden_dim": WIDTH, "n_blocks": LAYERS, "n_heads": HEADS, "vocab_size": VOCAB, "model_length": LENGTH}
    config["block_sizes"] = [{"size": size, "beta": 0.1, "omega": 1.0} for size in (1, 4, 8, 32)]
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TINY / "tokenizer.json", folder)
    numbers = random.Random(0)
    noise = struct.pack("<32768e", *(numbers.gauss(0, 0.05) for _ in range(32768)))
    header, chunks, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, values in shapes():
        count = math.prod(shape)
        if name.endswith("inv_freq"):
            kind, data = "F32", struct.pack(f"<{count}f", *(10000 ** (-i / count) for i in range(count)))
        elif not shape:
            kind, data = "F32", values
        else:
            kind, data = "F16", (noise * (2 * count // len(noise) + 1))[: 2 * count]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(data)]}
        chunks.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.writelines(chunks)


class Server:
    """`bd3 serve` on a free port."""

    def __init__(self, binary, model):
        self.process = subprocess.Popen([binary, "serve", model, "--port", "0"], stderr=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)/", self.process.stderr.readline()).group(1))

    def ask(self, body, first=None):
        """The last chunk of a stream; `first` is called with the first chunk that has text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        usage = None
        for line in connection.getresponse():
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            if first and chunk["choices"] and chunk.get("bd3", {}).get("trace", [{}])[-1].get("event") == "block_committed":
                first()
                first = None
            usage = chunk.get("usage") or usage
        return usage

    def end(self):
        self.process.terminate()
        self.process.wait()


def body(block, tokens, seed, **more):
    text = {"block": block, "rule": "confidence", "steps": max(1, block // 2), **more.pop("bd3", {})}
    ids = [random.Random(seed).randrange(256, 4000) for _ in range(8)]
    # No end of text: every request writes all its tokens.
    wanted = {"prompt": ids, "max_tokens": tokens, "seed": seed, "logit_bias": {"4093": -100}, "bd3": text}
    return wanted | {"stream": True, "stream_options": {"include_usage": True}} | more


def rate(server, block, tokens, count):
    """Tokens/s of so many requests at once."""
    done = []
    ask = lambda seed: done.append(server.ask(body(block, tokens, seed))["completion_tokens"])
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(count)]
    start = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return sum(done) / (time.perf_counter() - start)


def first_block(server, block, behind):
    """Seconds to the first block of a short request behind so many long ones, of which half have long prompts."""
    stop, threads = threading.Event(), []

    def long(seed):
        wanted = body(block, 700, seed)
        if seed % 2:
            wanted["prompt"] = [random.Random(seed).randrange(256, 4000) for _ in range(600)]
            wanted["max_tokens"] = 300
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/v1/completions", json.dumps(wanted), {"content-type": "application/json"})
        response = connection.getresponse()
        while not stop.is_set() and response.fp and response.readline():
            pass
        connection.sock and connection.sock.close()

    for seed in range(behind):
        threads.append(threading.Thread(target=long, args=(100 + seed,), daemon=True))
        threads[-1].start()
    time.sleep(0.4 if behind else 0)
    start, times = time.perf_counter(), []
    server.ask(body(block, 8, 1, bd3={"events": True}), first=lambda: times.append(time.perf_counter() - start))
    stop.set()
    [thread.join(5) for thread in threads]
    time.sleep(0.1)
    return times[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bd3", default=str(ROOT / "target/release/bd3"))
    parser.add_argument("--model", help="default: 134 million random numbers at Q8_0")
    parser.add_argument("--blocks", default="1,4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if not model:
            folder = pathlib.Path(folder)
            (folder / "f16").mkdir()
            random_model(folder / "f16")
            model = str(folder / "random.gguf")
            subprocess.run([args.bd3, "convert", folder / "f16", model, "--to", "q8_0"], check=True)
        server = Server(args.bd3, model)
        try:
            for block in map(int, args.blocks.split(",")):
                rate(server, block, 16, 1)
                rows = []
                for _ in range(args.rounds):
                    one, eight = rate(server, block, args.tokens, 1), rate(server, block, args.tokens, 8)
                    alone, behind = first_block(server, block, 0), first_block(server, block, 7)
                    rows.append((one, eight, eight / one, 1000 * alone, 1000 * behind, behind / alone))
                one, eight, gain, alone, behind, wait = map(statistics.median, zip(*rows))
                print(
                    f"block {block}: {one:.0f} tokens/s alone, {eight:.0f} of eight at once: {gain:.2f} x"
                    f" ({min(r[2] for r in rows):.2f} to {max(r[2] for r in rows):.2f});"
                    f" first block {alone:.0f} ms alone, {behind:.0f} ms behind seven long ones: {wait:.1f} x"
                    f" (at most {max(r[5] for r in rows):.1f})",
                    flush=True,
                )
        finally:
            server.end()


if __name__ == "__main__":
    main()
