#!/usr/bin/env python3
"""llama.cpp and bd3 on the same GGUF files, in turn, medians, as one Markdown table.

    pip install llama-cpp-python numpy
    cargo build --release
    python docs/bench/compare.py [FILE.gguf ...]

Without a FILE it makes a random Llama of 134 M parameters (768 x 12, 2048, 32000), converts it with `bd3 convert --to q8_0`, and adds
the line of block diffusion: the same shape and format at block 4, two tokens a pass, by `bd3 bench decode --shape` (the file itself
says autoregressive; how fast a pass is does not depend on the values of the weights).

What is measured, each with --threads threads:
  one at a time   --tokens new tokens, greedily, after a prompt of 8; the prompt's time is not counted on llama.cpp's side, and is on ours
  N rows          one llama_decode of N tokens after 256 stored ones, logits of the last only, the cache cut back each time;
                  `bd3 bench pass FILE --rows N --depth 256` is the same thing
"""

import argparse
import ctypes
import json
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import llama_cpp
import numpy as np

HIDDEN, LAYERS, FEED_FORWARD, VOCAB = 768, 12, 2048, 32000
DEPTH, PROMPT = 256, 8


def random_llama(folder):
    """A Hugging Face folder in f16: random weights, and a byte-level vocabulary of all pairs of bytes, as far as there is room."""
    folder.mkdir()
    alphabet = [chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    pairs = [(a, b) for a in alphabet for b in alphabet][: VOCAB - 2 - len(alphabet)]
    words = alphabet + [a + b for a, b in pairs]
    added = [{"id": VOCAB - 2 + i, "content": name, "special": True, "normalized": False, "single_word": False,
              "lstrip": False, "rstrip": False} for i, name in enumerate(["<bos>", "<eos>"])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(words)}, "merges": [list(pair) for pair in pairs]}
    (folder / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level, "model": model}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HIDDEN // 64, "num_key_value_heads": HIDDEN // 64,
        "intermediate_size": FEED_FORWARD, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1}))
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        own = {f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        own |= {f"mlp.{name}_proj.weight": (FEED_FORWARD, HIDDEN) for name in ("gate", "up")}
        own |= {"mlp.down_proj.weight": (HIDDEN, FEED_FORWARD)}
        own |= {f"{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for shape in shapes.values():
            values = rng.standard_normal(shape, np.float32) / shape[-1] ** 0.5 if len(shape) == 2 else np.ones(shape)
            out.write(values.astype(np.float16).tobytes())


class Llama:
    """llama.cpp through its own interface: nothing of Python is between two tokens but the call."""

    def __init__(self, path, threads):
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        self.quiet = quiet
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        how = llama_cpp.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch = 1024, 512, 512
        how.n_threads = how.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, how)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.greedy = llama_cpp.llama_sampler_init_greedy()
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def store(self, count):
        """Stores so many tokens; logits of the last one only."""
        tokens = (llama_cpp.llama_token * count)(*[i % self.vocab for i in range(count)])
        self.decode(tokens)

    def decode(self, tokens):
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)

    def write(self, count):
        """Tokens per second, one at a time."""
        llama_cpp.llama_memory_clear(self.memory, True)
        self.store(PROMPT)
        token = (llama_cpp.llama_token * 1)()
        start = time.perf_counter()
        for _ in range(count):
            token[0] = llama_cpp.llama_sampler_sample(self.greedy, self.context, -1)
            self.decode(token)
        return count / (time.perf_counter() - start)

    def rows(self, rows, times):
        """Milliseconds of each of some passes of so many rows, after one that is not timed."""
        llama_cpp.llama_memory_clear(self.memory, True)
        self.store(DEPTH)
        all_ = []
        for _ in range(times + 1):
            start = time.perf_counter()
            self.store(rows)
            all_.append(1e3 * (time.perf_counter() - start))
            llama_cpp.llama_memory_seq_rm(self.memory, 0, DEPTH, -1)
        return all_[1:]


def bench(args, *more):
    isa = ["--isa", args.isa] if args.isa else []
    command = [args.bd3, "bench", *map(str, more), "--threads", str(args.threads), *isa, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare(args, path, diffuses):
    """Lines of the table: name, ours, theirs, how many times faster."""
    llama = Llama(path, args.threads)
    ours, theirs = {}, {}
    add = lambda to, key, values: to.setdefault(key, []).extend(values)
    for _ in range(args.rounds):
        add(theirs, "write", [llama.write(args.tokens)])
        done = bench(args, "decode", path, "-n", args.tokens, "--prompt", PROMPT, "--temperature", 0, "--repeat", 1)
        add(ours, "write", [done["tokens_per_second"]])
        if diffuses:
            shape = ["--shape", f"{HIDDEN}x{LAYERS},{FEED_FORWARD},{VOCAB}", "--format", "q8_0"]
            how = ["--block", 4, "--tokens-per-pass", 2, "-n", args.tokens, "--prompt", PROMPT, "--repeat", 1]
            add(ours, "diffuse", [bench(args, "decode", *shape, *how)["tokens_per_second"]])
        for rows in args.rows:
            add(theirs, rows, llama.rows(rows, args.times))
        counts = ",".join(map(str, args.rows))
        for row in bench(args, "pass", path, "--rows", counts, "--depth", DEPTH, "--repeat", args.times)["rows"]:
            add(ours, row["rows"], [row["ms"]])
    ours, theirs = ({key: statistics.median(values) for key, values in of.items()} for of in (ours, theirs))
    lines = [("one at a time, tokens/s", ours["write"], theirs["write"], ours["write"] / theirs["write"])]
    if diffuses:
        name = "block 4, two tokens a pass, against one at a time, tokens/s"
        lines.append((name, ours["diffuse"], theirs["write"], ours["diffuse"] / theirs["write"]))
    for rows in args.rows:
        name = f"{rows} row{'s' if rows > 1 else ''} at depth {DEPTH}, ms"
        lines.append((name, ours[rows], theirs[rows], theirs[rows] / ours[rows]))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.gguf")
    parser.add_argument("--bd3", default="target/release/bd3")
    parser.add_argument("--isa", help="bd3's instructions; llama.cpp has those that it was built with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5, help="turns of both programs")
    parser.add_argument("--times", type=int, default=10, help="passes in a turn")
    args = parser.parse_args()
    llama_cpp.llama_backend_init()
    print("| file | what | bd3 | llama.cpp | times faster |\n| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        files = [(path, path.name, False) for path in args.files]
        if not files:
            folder, path = Path(temporary) / "random", Path(temporary) / "random.gguf"
            random_llama(folder)
            subprocess.run([args.bd3, "convert", folder, path, "--to", "q8_0"], check=True, stdout=subprocess.DEVNULL)
            files = [(path, "134 M, q8_0", True)]
        for path, name, diffuses in files:
            for what, ours, theirs, times in compare(args, path, diffuses):
                print(f"| {name} | {what} | {ours:.4g} | {theirs:.4g} | {times:.2f} |", flush=True)


if __name__ == "__main__":
    main()
