"""The table as Markdown, and the plot as SVG."""

import datetime
import os
import platform
import subprocess

from tools import Jellyfish, Kmc, Leader, version

COLOURS = {"kmer-leader": "#2a7f62", "KMC 3": "#b5651d", "Jellyfish 2": "#8a5a9e"}


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal")) / 2**20
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return (f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}; "
            f"kmer-leader at {commit or 'unknown'}, KMC {version('kmc')}, Jellyfish {version('jellyfish')}; "
            f"{datetime.date.today().isoformat()}")


def beside(bench, case, rows):
    """What a case is compared with: its seconds as text, and as a number."""
    if isinstance(case.beside, float):
        return f"{case.beside} (literature)", case.beside
    tool = next(c.ours for c in rows if c.name == case.beside) if isinstance(case.beside, str) else case.beside
    if bench.key(tool) not in bench.samples:
        return "not run", None
    name = "" if isinstance(tool, Leader) else tool.name + " "
    return f"{name}{bench.sample(tool).text()}", bench.sample(tool).median


def mark(reached):
    return "yes" if reached else "no"


def row(bench, case, rows):
    ours = bench.sample(case.ours)
    text, seconds = beside(bench, case, rows)
    ratio = seconds / ours.median if seconds else None
    goal = "" if case.goal is None else (f"{case.goal:g}" if case.goal >= 1 else f"1/{1 / case.goal:g}")
    reached = "" if case.goal is None or ratio is None else mark(ratio >= case.goal)
    # A run that is over before it was looked at has none.
    memory = f"{ours.peak / 1e6:.0f}" if ours.peak else ""
    if case.memory_goal:
        memory += f" (under {case.memory_goal / 1e6:.0f}: {mark(ours.peak < case.memory_goal)})"
    shown = "" if ratio is None else f"**{ratio:.1f}**" if ratio >= 1 else f"**1/{1 / ratio:.1f}**"
    return f"| {case.what} | {ours.text()} | {text} | {shown} | {goal} | {reached} | {memory} |"


def table(bench, rows, chosen, extra, args):
    """All rows."""
    lines = [
        f"{args.reads:,} reads of 150 bases, 2 workers or threads each; seconds are medians of {args.repeats} interleaved runs "
        "(least to most); memory is the peak of all processes of kmer-leader with the segment, in MB.",
        "",
        machine(),
        "",
        "| what | kmer-leader, s | beside, s | times faster | goal | reached | memory, MB |",
        "|---|---|---|---|---|---|---|",
        *(row(bench, case, rows) for case in chosen),
        "",
    ]
    if extra:
        lines += ["| what | goal | found | reached |", "|---|---|---|---|"]
        lines += [f"| {what} | {goal} | {found} | {mark(reached)} |" for what, goal, found, reached in extra]
        lines.append("")
    return "\n".join(lines)


def bars(bench, cases):
    """For each comparison with another program: what, and (program, seconds) twice."""
    for case in cases:
        if isinstance(case.beside, (Kmc, Jellyfish)):
            yield case.what, [(t.name, bench.sample(t).median) for t in [case.ours, case.beside]]


def plot(bench, cases):
    """Horizontal bars, one scale for all, readable on white and on black."""
    groups = list(bars(bench, cases))
    longest = max((seconds for _, pair in groups for _, seconds in pair), default=1)
    width, left, bar = 860, 20, 15
    scale = (width - left - 90) / longest
    out, y = [], 46
    for what, pair in groups:
        out.append(f'<text x="{left}" y="{y}" class="t">{what}</text>')
        for name, seconds in pair:
            y += bar + 3
            length = max(seconds * scale, 1)
            out.append(f'<rect x="{left}" y="{y - bar + 4}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[name]}"/>')
            out.append(f'<text x="{left + length + 5:.1f}" y="{y}" class="n">{seconds:.2f} s</text>')
        y += 30
    shown = {name for _, pair in groups for name, _ in pair}
    used = [(name, colour) for name, colour in COLOURS.items() if name in shown]
    legend = "".join(f'<rect x="{left + 150 * i}" y="12" width="12" height="12" fill="{colour}"/>'
                     f'<text x="{left + 150 * i + 18}" y="22" class="n">{name}</text>' for i, (name, colour) in enumerate(used))
    style = ("<style>text{font-family:sans-serif;fill:#222}.t{font-size:13px;font-weight:bold}.n{font-size:12px}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img" aria-label="seconds by program">'
            f"{style}{legend}{''.join(out)}</svg>\n")
