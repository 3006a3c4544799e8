"""The paper's order at a small size: trains every recipe of this folder with several seeds, measures them, prints the tables.

    cargo build --release
    target/release/bd3 data stories.train.jsonl.zst --tokenizer models/tiny --split 99,1,0 --out runs/stories
    python recipes/paper/run.py --test stories.test.jsonl

From the root of the repository; models/README.md says where the text is from. The last command does it all, in about seven hours on
two cores; stopped and started again it goes on where it was, from each run's last checkpoint. Each run has a thread of its own.
Writes into --out (a folder and a small file of results for each run) and --svg, and prints Markdown; `--tables` does so from the
files of results alone. No packages are needed."""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby, islice
from pathlib import Path

HERE = Path(__file__).parent
# Recipe, name, block size, perplexity on LM1B (Arriola et al. 2025, tables 1 and 3).
ORDER = [
    ("ar", "AR", 1, 22.83),
    ("block4", "BD3-LM, block 4", 4, 28.23),
    ("block8", "BD3-LM, block 8", 8, 29.83),
    ("block16", "BD3-LM, block 16", 16, 30.60),
    ("diffusion", "MDLM (one block)", 128, 31.78),
    ("sedd", "SEDD (one block)", 128, 32.68),
]
# Block size, recipe with all noise levels, recipe with a clip, and the paper's perplexity and variance of both (tables 1, 8 and, for one
# block, 2).
CLIPS = [
    (1, "block1-full", "block1", (25.56, 1.52), (22.88, 0.11)),
    (4, "block4-full", "block4", (30.18, 23.45), (29.21, 6.24)),
    (16, "block16-full", "block16", (31.72, 7.62), (31.12, 3.58)),
    (128, "diffusion", "diffusion-clip", (31.78, 3.80), (31.78, 1.35)),
]
# The runs of the second table that the first has not.
VARIANTS = [
    ("block1", "block 1, clipped"),
    ("block1-full", "block 1, all levels"),
    ("block4-full", "block 4, all levels"),
    ("block16-full", "block 16, all levels"),
    ("diffusion-clip", "one block, clipped"),
]
# Training steps whose losses are kept as one mean.
WINDOW = 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bd3", default="target/release/bd3", help="the program")
    parser.add_argument("--test", help="text to measure on")
    parser.add_argument("--out", default="runs/paper", type=Path, help="folder of the runs")
    parser.add_argument("--svg", default="docs/paper.svg", type=Path, help="where the plot goes")
    parser.add_argument("--seeds", default=3, type=int, help="runs of each recipe, seeds 1, 2, ...")
    parser.add_argument("--jobs", default=os.cpu_count(), type=int, help="runs side by side")
    parser.add_argument("--draws", default=4, type=int, help="how often each row of the test text is noised, four times that for one block")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of all recipes")
    parser.add_argument("--tables", action="store_true", help="only the tables, of the results that are there")
    return parser.parse_args()


def train(args, recipe, seed):
    """Trains one run to its end and measures it; both are passed over where they are done."""
    run, kept = args.out / f"{recipe}-{seed}", args.out / f"{recipe}-{seed}.json"
    # The bound of one large block has the most noise.
    draws = args.draws * (4 if recipe in ("diffusion", "diffusion-clip", "sedd") else 1)
    text = (HERE / f"{recipe}.toml").read_bytes()
    sources = [Path(source["path"]) for source in tomllib.loads(text.decode())["data"]["sources"]]
    made = {
        "recipe": digest(text),
        "set": args.set,
        "data": [digest((source / name).read_bytes()) for source in sources for name in ("tokenizer.json", "train.bin")],
        "test": digest(Path(args.test).read_bytes()),
        "draws": draws,
    }
    if kept.exists():
        if json.loads(kept.read_text())["made"] != made:
            raise SystemExit(f"error: {kept} was made with another recipe, --set, data, --test or --draws; name another --out")
        return
    settings = [word for setting in [f"seed={seed}", *args.set] for word in ("--set", setting)]
    alone = {**os.environ, "RAYON_NUM_THREADS": "1"}
    args.out.mkdir(parents=True, exist_ok=True)
    with open(run.with_suffix(".log"), "a") as log:
        command = [args.bd3, "train", HERE / f"{recipe}.toml", "--out", run, "--resume", *settings]
        done = subprocess.run(command, env=alone, stdout=subprocess.PIPE, stderr=log, check=True)
        # A run that was stopped is no error, but says nothing of a model.
        if not done.stdout:
            raise SystemExit(f"{run}: stopped; start again to go on")
        command = [args.bd3, "eval", run / "model", args.test, "--draws", str(draws), "--json", "--each"]
        command += [] if recipe == "sedd" else ["--exact", "--threads", "1"]
        done = subprocess.run(command, env=alone, stdout=subprocess.PIPE, stderr=log, check=True)
    keep(run, kept, made, json.loads(done.stdout)["rows"][0])
    print(f"{run}: {math.exp(nats(load(args, recipe)[seed])):.2f}", file=sys.stderr, flush=True)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def keep(run, kept, made, row):
    """A run's result in a small file: what made it, nats of each row of the test text, tokens as pairs (rows, tokens of each), how many
    rows begin in each document, the variance of its loss, its course, and how often its gradient was clipped."""
    tokens = [[len(list(same)), count] for count, same in groupby(count for _, count, _ in row["each"])]
    documents = [len(list(same)) for _, same in groupby(document for *_, document in row["each"])]
    result = {"made": made, "variance": variance(run), "losses": course(run), "clipped": clipped(run), "tokens": tokens}
    result["documents"] = documents
    result["nats"] = [round(nats, 2) for nats, *_ in row["each"]]
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    part.replace(kept)


def steps_of(run, key):
    """A figure of every training step."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def second_half(figures):
    return figures[len(figures) // 2:]


def variance(run):
    """Of the loss of a training step in the second half of a run, from neighbours, so that the trend does not count."""
    half = second_half(steps_of(run, "loss"))
    return sum((b - a) ** 2 for a, b in zip(half, half[1:])) / (2 * (len(half) - 1))


def clipped(run):
    """The share of the steps in the second half of a run whose gradient was longer than 1."""
    return round(statistics.mean(norm > 1 for norm in second_half(steps_of(run, "grad_norm"))), 4)


def course(run):
    """Means of the loss of so many steps each."""
    steps = steps_of(run, "loss")
    return [round(statistics.mean(steps[i:i + WINDOW]), 4) for i in range(0, len(steps), WINDOW)]


def load(args, recipe):
    """By seed: nats of every row of the test text, the tokens of each, the variance of the loss, its course, rows by document, and
    the share of clipped steps."""
    runs = {}
    for seed in range(1, args.seeds + 1):
        path = args.out / f"{recipe}-{seed}.json"
        if path.exists():
            kept = json.loads(path.read_text())
            tokens = [count for rows, count in kept["tokens"] for _ in range(rows)]
            runs[seed] = (kept["nats"], tokens, kept["variance"], kept["losses"], kept["documents"], kept["clipped"])
    return runs


def nats(run):
    return sum(run[0]) / sum(run[1])


def perplexity(runs):
    """Of the mean over seeds, and the standard deviation of the seeds' own."""
    each = [math.exp(nats(run)) for run in runs.values()]
    spread = statistics.stdev(each) if len(each) > 1 else math.nan
    return math.exp(statistics.mean(nats(run) for run in runs.values())), spread


def paired(left, right):
    """Nats a token that `right` has more than `left`: the mean; its standard error by documents (the models as they are; the rows
    of a document are alike), and by seeds (other models of the same kind)."""
    seeds = sorted(set(left) & set(right))
    if not seeds:
        return math.nan, math.nan, math.nan
    tokens = left[seeds[0]][1]
    assert all(run[seed][1] == tokens for run in (left, right) for seed in seeds), "the same rows of text"
    total = sum(tokens)
    rows = [statistics.mean(right[s][0][i] - left[s][0][i] for s in seeds) for i in range(len(tokens))]
    mean = sum(rows) / total
    apart = iter([row - mean * n for row, n in zip(rows, tokens)])
    documents = [sum(islice(apart, count)) for count in left[seeds[0]][4]]
    count, squares = len(documents), sum(document**2 for document in documents)
    by_seed = [nats(right[s]) - nats(left[s]) for s in seeds]
    seeds_error = statistics.stdev(by_seed) / math.sqrt(len(seeds)) if len(seeds) > 1 else math.nan
    return mean, math.sqrt(squares * count / (count - 1)) / total, seeds_error


def order(args):
    """The runs of the order that are there, with the seeds that all of them have."""
    found = {recipe: load(args, recipe) for recipe, *_ in ORDER}
    found = {recipe: runs for recipe, runs in found.items() if runs}
    seeds = set.intersection(*map(set, found.values())) if found else set()
    return {recipe: {seed: run for seed, run in runs.items() if seed in seeds} for recipe, runs in found.items()}


def order_table(args):
    print("| model | perplexity | standard deviation of seeds | nats a token above the line before, ± error by text ± error by seeds "
          "| paper (LM1B, 65 B tokens) | its nats above |")
    print("| --- | --- | --- | --- | --- | --- |")
    before, runs_of = None, order(args)
    for recipe, name, block, paper in ORDER:
        runs = runs_of.get(recipe)
        if not runs:
            continue
        value, spread = perplexity(runs)
        more, theirs = ("", "") if before is None else (told(*paired(before[0], runs)), f"{math.log(paper / before[1]):+.3f}")
        print(f"| {name} | {bound(block, value)} | {'-' if math.isnan(spread) else f'{spread:.2f}'} | {more} | {paper:.2f} | {theirs} |")
        before = runs, paper


def clip_table(args):
    print("\n| block | all levels: perplexity | variance of a step's loss | clipped: perplexity | variance of a step's loss "
          "| clipped less all levels, nats a token, ± error by text ± error by seeds | paper, all levels: perplexity / variance | paper, clipped |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for block, full, clipped, theirs_full, theirs_clipped in CLIPS:
        left, right = common(load(args, full), load(args, clipped))
        if left:
            (a, _), (b, _) = perplexity(left), perplexity(right)
            v, w = (spread_of([run[2] for run in runs.values()]) for runs in (left, right))
            gap, theirs = told(*paired(left, right)), (f"{value:.2f} / {variance:.2f}" for value, variance in (theirs_full, theirs_clipped))
            print(f"| {block} | {bound(block, a)} | {v} | {bound(block, b)} | {w} | {gap} | {' | '.join(theirs)} |")
    ar, one = common(load(args, "ar"), load(args, "block1"))
    if ar:
        (a, _), (b, _) = perplexity(ar), perplexity(one)
        print(f"\nBlock size 1, every token masked, against AR: {b:.2f} and {a:.2f}, {told(*paired(ar, one))} nats a token.")


def size_table(args):
    """What a larger block costs where the noise levels are the same."""
    print("\n| blocks | all levels: nats a token, ± error by text ± error by seeds | paper | clipped | paper |")
    print("| --- | --- | --- | --- | --- |")
    for small, large in zip(CLIPS, CLIPS[1:]):
        cells = []
        for recipe, theirs in ((1, 3), (2, 4)):
            left, right = common(load(args, small[recipe]), load(args, large[recipe]))
            cells += [told(*paired(left, right)) if left else "-", f"{math.log(large[theirs][0] / small[theirs][0]):+.3f}"]
        print(f"| {small[0]} to {large[0]} | {' | '.join(cells)} |")


def lag_table(args):
    """How many times the steps each model took that AR needed for its loss: AR's training loss, smoothed over 7 windows, moved by what AR's
    test text is above its last 5. Beside it, how often the gradient was clipped."""
    print("\n| model | times the tokens that AR needed for the same loss | steps with a clipped gradient, % |")
    print("| --- | --- | --- |")
    for recipe, name in [(recipe, name) for recipe, name, *_ in ORDER[1:]] + VARIANTS:
        ar, runs = common(load(args, "ar"), load(args, recipe))
        if not runs:
            continue
        factors = []
        for seed, run in runs.items():
            curve = ar[seed][3]
            target = nats(run) - nats(ar[seed]) + statistics.mean(curve[-5:])
            smooth = [statistics.mean(curve[max(0, i - 3):i + 4]) for i in range(len(curve))]
            reached = next((i for i, loss in enumerate(smooth) if loss <= target), len(curve) - 1)
            factors.append(len(curve) / (reached + 0.5))
        print(f"| {name} | {statistics.mean(factors):.1f} | {100 * statistics.mean(run[5] for run in runs.values()):.0f} |")


def common(left, right):
    """Both with the seeds that both have."""
    seeds = sorted(set(left) & set(right))
    return [{seed: runs[seed] for seed in seeds} for runs in (left, right)]


def bound(block, perplexity):
    """Block size 1 is exact, a larger one bounded from above."""
    return f"{perplexity:.2f}" if block == 1 else f"≤ {perplexity:.2f}"


def told(mean, text, seeds):
    return f"{mean:+.4f} ± {text:.4f}" + (" (one seed)" if math.isnan(seeds) else f" ± {seeds:.4f}")


def spread_of(numbers):
    spread = f" ± {statistics.stdev(numbers):.4f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.4f}{spread}"


def plot(args):
    """Perplexity by model, ours and the paper's, each relative to its AR."""
    runs = order(args)
    known = [(name, perplexity(runs[recipe])[0], paper) for recipe, name, _, paper in ORDER if runs.get(recipe)]
    if len(known) < 2 or known[0][0] != "AR":
        return
    ours = [value / known[0][1] for _, value, _ in known]
    theirs = [paper / known[0][2] for _, _, paper in known]
    top = max(ours + theirs) * 1.08
    left, width, height, base = 60, 680, 260, 300
    x = lambda i, k: left + 30 + i * (width - 40) / len(known) + k * 38
    y = lambda value: base - value / top * height
    style = "font-family='sans-serif' font-size='12' fill='#222'"
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 370' role='img' {style}>",
             "<title>Perplexity relative to autoregression</title><rect width='760' height='370' fill='#fff'/>"]
    tick = 0.0
    while tick < top:
        parts.append(f"<path d='M{left} {y(tick):.1f}H{left + width}' stroke='#ddd'/>"
                     f"<text x='{left - 8}' y='{y(tick) + 4:.1f}' text-anchor='end'>{tick:.1f}</text>")
        tick += 0.5
    for i, (name, value, paper) in enumerate(known):
        for k, (ratio, colour, text) in enumerate([(ours[i], "#2b6cb0", f"{value:.1f}"), (theirs[i], "#b8c4d0", f"{paper:.1f}")]):
            parts.append(f"<rect x='{x(i, k):.1f}' y='{y(ratio):.1f}' width='34' height='{base - y(ratio):.1f}' fill='{colour}'/>"
                         f"<text x='{x(i, k) + 17:.1f}' y='{y(ratio) - 5:.1f}' text-anchor='middle'>{text}</text>")
        first, _, rest = name.partition(" ")
        first, rest = (first.rstrip(","), rest) if rest else (first, "")
        parts.append(f"<text x='{x(i, 0) + 36:.1f}' y='320' text-anchor='middle'>{first}</text>"
                     f"<text x='{x(i, 0) + 36:.1f}' y='336' text-anchor='middle'>{rest}</text>")
    parts.append(f"<text x='{left}' y='20'>Perplexity, as a multiple of AR's (numbers: perplexity itself)</text>")
    for k, (colour, text) in enumerate([("#2b6cb0", "bd3, small models, stories"), ("#b8c4d0", "paper, LM1B")]):
        parts.append(f"<rect x='{left + k * 330}' y='350' width='12' height='12' fill='{colour}'/>"
                     f"<text x='{left + 18 + k * 330}' y='360'>{text}</text>")
    args.svg.write_text("\n".join(parts) + "\n</svg>\n")


def noise_plot(args):
    """Nats above AR by block size, with all levels and with a clip, ours and the paper's."""
    ar, theirs_ar = load(args, "ar"), CLIPS[0][4][0]
    lines = []
    for name, recipe, paper, dash in (("all levels", 1, 3, ""), ("clipped", 2, 4, "6 4")):
        found = [common(ar, load(args, clip[recipe])) for clip in CLIPS]
        if not all(left for left, _ in found):
            return
        lines.append((f"bd3, {name}", [statistics.mean(nats(right[s]) - nats(left[s]) for s in left) for left, right in found], "#2b6cb0", dash))
        lines.append((f"paper, {name}", [math.log(clip[paper][0] / theirs_ar) for clip in CLIPS], "#8795a3", dash))
    top = max(max(values) for _, values, *_ in lines) * 1.1
    x, y = lambda i: 80 + i * 150, lambda value: 270 - value / top * 230
    parts = ["<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 330' role='img' font-family='sans-serif' font-size='12' fill='#222'>",
             "<title>Nats above autoregression by block size</title><rect width='760' height='330' fill='#fff'/>",
             "<text x='60' y='20'>Nats a token above AR, by block size</text>"]
    for tick in range(int(top / 0.2) + 1):
        parts.append(f"<path d='M60 {y(tick * 0.2):.1f}H580' stroke='#ddd'/>"
                     f"<text x='52' y='{y(tick * 0.2) + 4:.1f}' text-anchor='end'>{tick * 0.2:.1f}</text>")
    parts += [f"<text x='{x(i)}' y='292' text-anchor='middle'>{clip[0]}</text>" for i, clip in enumerate(CLIPS)]
    parts.append(f"<text x='{x(3)}' y='308' text-anchor='middle'>(one block)</text>")
    # Labels stand beside the ends of their lines, and not upon each other.
    label = math.inf
    for name, values, colour, dash in sorted(lines, key=lambda line: (line[1][-1], sum(line[1]))):
        label = min(label - 15, y(values[-1]) + 4)
        points = " ".join(f"{x(i)},{y(value):.1f}" for i, value in enumerate(values))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2' stroke-dasharray='{dash}'/>"
                     f"<text x='{x(3) + 12}' y='{label:.1f}' fill='{colour}'>{name}</text>")
        parts += [f"<circle cx='{x(i)}' cy='{y(value):.1f}' r='3.5' fill='{colour}'/>" for i, value in enumerate(values)]
    args.svg.with_stem(args.svg.stem + "-noise").write_text("\n".join(parts) + "\n</svg>\n")


def main():
    args = parse()
    if not args.tables:
        if not args.test:
            sys.exit("error: --test must name a text to measure on")
        order = [recipe for recipe, *_ in ORDER]
        clips = [recipe for row in CLIPS for recipe in row[1:3] if recipe not in order]
        runs = [(recipe, seed) for table in (order, clips) for seed in range(1, args.seeds + 1) for recipe in table]
        with ThreadPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(train, args, recipe, seed) for recipe, seed in runs]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                # What runs is let run to its end or its stop; nothing new begins.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    order_table(args)
    clip_table(args)
    size_table(args)
    lag_table(args)
    plot(args)
    noise_plot(args)


if __name__ == "__main__":
    main()
