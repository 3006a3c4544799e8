"""Everything that models/README.md says in numbers about a model: likelihood, zero-shot sets, a judge's view of its texts, samples.

    python docs/bench/model.py --data DIR --judge SmolLM2-135M-Instruct.Q4_1.gguf [--bd3 target/release/bd3] [--model models/tiny]

DIR holds tinystories.test.jsonl, stories.test.jsonl, wiki.test.jsonl (WikiText's lines under `raw`) and lambada.test.jsonl. Prints
Markdown. No packages are needed."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

BLOCKS = [1, 4, 8, 32, 256]
TESTS = ["tinystories.test.jsonl", "stories.test.jsonl"]
# Name, file, key of its text, detokenizer.
ZERO_SHOT = [("wiki", "wiki.test.jsonl", "raw", "wikitext"), ("lambada", "lambada.test.jsonl", "text", "lambada")]
# Block size and flags of what the judge reads.
WRITTEN = [(block, "--rule first-hitting") for block in BLOCKS]
WRITTEN += [(8, f"--rule confidence --steps {steps}") for steps in (4, 2)]
WRITTEN += [(32, f"--rule confidence --steps {steps}") for steps in (16, 8)]
WRITTEN += [(block, "--quality") for block in (4, 8)]


def run(*command):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True).stdout


def rows(args, *command):
    return json.loads(run(args.bd3, "eval", *command, "--json"))["rows"]


def likelihood(args):
    print("| block | " + " | ".join(f"{name}: perplexity | bits per byte" for name in TESTS) + " |")
    print("| --- |" + " --- | --- |" * len(TESTS))
    blocks = ",".join(map(str, BLOCKS))
    tables = [rows(args, args.model, args.data / name, "--block", blocks, "--draws", args.draws) for name in TESTS]
    for block, *found in zip(BLOCKS, *tables):
        cells = [f"{row['perplexity']:.2f} ± {row['perplexity'] * row['stderr']:.2f} | {row['bits_per_byte']:.3f}" for row in found]
        name = {1: "1 (exact)", 256: "256 (one block)"}.get(block, str(block))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def zero_shot(args):
    print("\n| bits per byte | " + " | ".join(f"block {block}" for block in BLOCKS) + " |")
    print("| --- |" + " --- |" * len(BLOCKS))
    blocks = ",".join(map(str, BLOCKS))
    for name, file, field, detokenizer in ZERO_SHOT:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / name
            run(args.bd3, "data", args.data / file, "--field", field, "--detokenize", detokenizer, "--tokenizer", args.model,
                "--split", "0,0,100", "--out", folder)
            found = rows(args, args.model, folder, "--block", blocks, "--draws", args.draws)
            bits = lambda row: f"{row['bits_per_byte']:.3f} ± {row['bits_per_byte'] * row['stderr'] / row['nats']:.3f}"
            ours = [bits(row) for row in found]
        print(f"| {name} | {' | '.join(ours)} |", flush=True)


def written(args):
    print("\n| text | passes a sample | judge perplexity | entropy | repeated 4-grams, % |")
    print("| --- | --- | --- | --- | --- |")
    tell = lambda row: f"{row['perplexity']:.1f} ± {row['stderr']:.1f} | {row['entropy']:.3f} | {100 * row['repetition']:.1f}"
    for i, (block, flags) in enumerate(WRITTEN):
        text = [args.data / TESTS[0]] if i == 0 else []
        found = rows_with_flags(args, text, block, flags)
        if i == 0:
            print(f"| {TESTS[0]} | | {tell(found[0])} |")
        row = found[-1]
        print(f"| block {block}, `{flags}` | {row['passes'] / row['samples']:.0f} | {tell(row)} |", flush=True)


def rows_with_flags(args, text, block, flags):
    command = [args.bd3, "eval", args.model, *text, "--judge", args.judge, "--generate", args.samples, "--block", block]
    sample = ["-n", "200", "--top-p", "0.9", "--seed", "1", *flags.split()]
    return json.loads(run(*command, "--json", "--", *sample))["rows"]


def samples(args):
    for seed in range(1, 9):
        text = run(args.bd3, "sample", args.model, "-n", "200", "--seed", seed, "--view", "text")
        print(f"\n**seed {seed}**\n\n```text\n{text.strip()}\n```")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bd3", default="target/release/bd3")
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--judge", help="an autoregressive checkpoint, for the part `written`")
    parser.add_argument("--draws", default=4, type=int, help="how often each row of a test text is noised")
    parser.add_argument("--samples", default=32, type=int, help="samples of 200 tokens that the judge reads")
    parts = {part.__name__: part for part in (likelihood, zero_shot, written, samples)}
    parser.add_argument("--parts", default=list(parts), nargs="+", choices=parts, help="which of them; default: all")
    args = parser.parse_args()
    if "written" in args.parts and not args.judge:
        parser.error("--judge must name a checkpoint for the part `written`")
    for part in args.parts:
        parts[part](args)


if __name__ == "__main__":
    main()
