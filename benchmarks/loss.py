"""The tiled contrastive loss beside the full matrix: `python -m benchmarks.loss`.

Forward and backward of one process, random features of norm 1. Contestants: the loss of
`trainer.loss`; the full matrix with two cross-entropies; open_clip's ClipLoss, where installed.
Each runs in a process of its own, in turns; times are medians of the turns (cpu_seconds, the
processor time, is what to read where others compute beside it); memory is the peak above what the
process held with its features made and a small loss computed (CPU: resident, Linux; GPU: torch's
allocator). Prints JSON.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTESTANTS = ("tiled", "full matrix", "open_clip")


def main(argv: list[str] | None = None) -> None:
    """Runs all contestants, or the one that `--contestant` names, within this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16_384)
    parser.add_argument("--embed", type=int, default=512)
    parser.add_argument("--scale", type=float, default=14.3, help="exp(logit_scale)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.contestant:
        print(json.dumps(measure(args)))
        return
    print(json.dumps(compare(args), indent=2))


def compare(args: argparse.Namespace) -> dict:
    """Each contestant's median seconds and peak bytes, and the tiled loss's share of them."""
    here = [name for name in CONTESTANTS if name != "open_clip" or installed("open_clip")]
    turns: dict[str, list[dict]] = {name: [] for name in here}
    settings = ("batch", "embed", "scale", "threads", "device")
    options = [f"--{name}={getattr(args, name)}" for name in settings]
    for turn in range(args.turns):
        for name in here:
            print(f"turn {turn + 1} of {args.turns}: {name}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.loss", f"--contestant={name}", *options]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            turns[name].append(json.loads(answer))
    results = {
        name: {
            "seconds": statistics.median(turn["seconds"] for turn in of_name),
            "cpu_seconds": statistics.median(turn["cpu_seconds"] for turn in of_name),
            "peak_bytes": max(turn["peak_bytes"] for turn in of_name),
            "loss": of_name[0]["loss"],
            "device": of_name[0]["device"],
        }
        for name, of_name in turns.items()
    }
    for name in here[1:]:
        for key in ("seconds", "cpu_seconds", "peak_bytes"):
            results[name][f"tiled_share_of_{key}"] = results["tiled"][key] / results[name][key]
    return {**{name: getattr(args, name) for name in settings}, "turns": args.turns, **results}


def measure(args: argparse.Namespace) -> dict:
    """One forward and backward pass of one contestant: seconds, peak bytes, the loss's value."""
    import torch

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    loss_of = contestant(args.contestant)
    generator = torch.Generator(device).manual_seed(1)
    image = torch.randn(args.batch, args.embed, device=device, generator=generator)
    text = torch.randn(args.batch, args.embed, device=device, generator=generator)
    for features in (image, text):
        features /= features.norm(dim=1, keepdim=True)
        features.requires_grad_()
    scale = torch.tensor(args.scale, device=device, requires_grad=True)
    loss_of(image[:64], text[:64], scale).backward()
    image.grad, text.grad, scale.grad = torch.zeros_like(image), torch.zeros_like(text), None
    before = memory(device, peak=False)
    synchronise(device)
    start, start_cpu = time.perf_counter(), time.process_time()
    loss = loss_of(image, text, scale)
    loss.backward()
    synchronise(device)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": memory(device, peak=True) - before,
        "loss": loss.item(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def contestant(name: str) -> Callable:
    """A function of (image features, text features, scale), all of one process, to the loss."""
    import torch
    from torch.nn import functional as F

    if name == "tiled":
        from trainer.loss import contrastive_loss

        return contrastive_loss
    if name == "open_clip":
        from open_clip import ClipLoss

        return ClipLoss()

    def full_matrix(image, text, scale):
        logits = scale * image @ text.T
        labels = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    return full_matrix


def memory(device, peak: bool) -> int:
    """Bytes held now; or the most since the last call without `peak` (CPU: since the start)."""
    import torch

    if device.type == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    field = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def synchronise(device) -> None:
    """Waits until a GPU has done what was asked of it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    main()
