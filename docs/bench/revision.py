"""Each revision on and off at about equal passes, on the model inside the binary: judge perplexity, entropy, repetition.

    python docs/bench/revision.py --bd3 target/release/bd3 --judge SmolLM2-135M-Instruct.Q4_1.gguf

Prints a Markdown table. Every row is made of several runs of `bd3 eval tiny --judge`, each with a seed of its own; after ± stands the
standard error of their mean. No packages are needed."""

import argparse
import json
import math
import os
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor

# What is compared: block size, then the flags without and with revision.
GROUPS = [
    (32, "--rule ancestral --steps 20", [
        "--rule ancestral --steps 16 --revise remdm-cap --eta 0.1",
        "--rule ancestral --steps 16 --revise remdm-rescale --eta 0.1",
        "--rule ancestral --steps 17 --revise remdm-conf",
        "--rule ancestral --steps 16 --revise remdm-loop --eta 0.1",
    ]),
    (32, "--rule ancestral --steps 26", [
        "--rule ancestral --steps 12 --revise corrector --revise-threshold 0.01",
    ]),
    (8, "--rule confidence --steps 5", [
        "--rule confidence --steps 4 --revise remask --revise-threshold 0.1",
        "--rule confidence --steps 4 --revise edit --revise-threshold 0.9",
        "--rule confidence --steps 4 --revise edit --revise-threshold 0.3",
    ]),
    (8, "--rule confidence --steps 6", [
        "--rule confidence --steps 4 --revise corrector --revise-threshold 0.01",
    ]),
    (8, "--rule confidence --steps 7", [
        "--rule confidence --steps 6 --revise remask --revise-threshold 0.1",
        "--rule confidence --steps 4 --revise corrector --revise-threshold 0.05",
    ]),
    (8, "--rule ancestral --steps 24", [
        "--rule ancestral --steps 8 --revise edit --revise-threshold 0.3 --revise-rounds 2",
        "--rule ancestral --steps 12 --revise look-back",
        "--rule ancestral --steps 6 --revise corrector --revise-threshold 0.01",
    ]),
    (4, "--rule first-hitting", [
        "--rule first-hitting --revise look-back",
        "--rule first-hitting --revise edit --revise-threshold 0.3 --revise-rounds 1",
        "--rule first-hitting --revise corrector --revise-threshold 0.01",
        "--rule first-hitting --revise corrector --revise-threshold 0.01 --revise-rounds 3",
    ]),
    (1, "--rule first-hitting", [
    ]),
]


def measure(args, block, flags):
    """Mean and standard error of nats, entropy, repetition; tokens a pass."""
    def row(seed):
        command = [args.bd3, "eval", "tiny", "--judge", args.judge, "--generate", str(args.samples), "--threads", "1"]
        command += ["--block", str(block), "--json", "--", "-n", "128", "--seed", str(seed), *flags.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["rows"][0]

    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(row, range(1, args.runs + 1)))
    mean = lambda key: statistics.fmean(row[key] for row in rows)
    error = lambda key: statistics.stdev(row[key] for row in rows) / math.sqrt(len(rows))
    perplexity = math.exp(mean("nats"))
    return (
        f"{perplexity:.1f} ± {perplexity * error('nats'):.1f}",
        f"{mean('entropy'):.2f} ± {error('entropy'):.2f}",
        f"{100 * mean('repetition'):.1f} ± {100 * error('repetition'):.1f}",
        f"{mean('tokens_per_pass'):.2f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bd3", default="target/release/bd3")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--runs", type=int, default=8, help="runs for each row, with seeds 1 to this")
    parser.add_argument("--samples", type=int, default=12, help="samples of 128 tokens in each run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    args = parser.parse_args()
    print("| block | flags | tokens a pass | judge perplexity | entropy | repeated 4-grams, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for block, off, revisions in GROUPS:
        for flags in [off, *revisions]:
            perplexity, entropy, repetition, per_pass = measure(args, block, flags)
            print(f"| {block} | `{flags}` | {per_pass} | {perplexity} | {entropy} | {repetition} |", flush=True)


if __name__ == "__main__":
    main()
