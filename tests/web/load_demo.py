"""Does the demo serve many at once, and stay as large as it is? `python tests/web/load_demo.py` (minutes; --quick
seconds).

Starts the demo as a user does, on an untrained checkpoint, and sends rounds of concurrent uploads to it: photographs of
several megapixels, small pictures, and every tenth one damaged. Counts what was served, refused and lost, reads the
server's memory from /proc after each round, and prints the slope of a line through it, warm-up left out.
"""

import argparse
import asyncio
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from small_runs import save_checkpoint

BAD = 10  # every so many-th upload is damaged
SIZES = ((224, 224), (640, 480), (1600, 1200), (2400, 1800))  # pixels of the pictures


def uploads() -> list[bytes]:
    """Pictures of each size as JPEG files; gradients with noise, a megabyte at most."""
    random, files = np.random.default_rng(0), []
    for width, height in SIZES:
        rows, columns = np.mgrid[:height, :width]
        ramps = np.stack([255 * columns / width, 255 * rows / height, 128 + 0 * rows], -1)
        noisy = (ramps + random.normal(0, 12, ramps.shape)).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def memory(process: int) -> float:
    """Resident MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


async def round_of(session: aiohttp.ClientSession, address: str, files: list[bytes], concurrent: int) -> Counter:
    """One round: all at once. {"served", "refused" (the damaged ones, with a reason), "lost"}."""

    async def ask(number: int) -> str:
        content = files[number % len(files)]
        bad = number % BAD == BAD - 1
        try:
            sent = b"damaged" + content[:5000] if bad else content
            async with session.post(f"{address}api/captions", data=sent) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            return "lost"
        if bad:
            return "refused" if response.status == 422 and answer["error"] else "lost"
        return "served" if response.status == 200 and answer["models"][0]["searches"]["greedy"] else "lost"

    return Counter(await asyncio.gather(*(ask(number) for number in range(concurrent))))


async def load(address: str, process: int, *, concurrent: int, rounds: int) -> dict:
    """{"served", "refused", "lost", "MiB" after each round, "slope" in MiB a thousand requests}."""
    files, total, sizes = uploads(), Counter(), []
    limits = aiohttp.TCPConnector(limit=concurrent)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(total=600)) as session:
        for number in range(rounds):
            total += await round_of(session, address, files, concurrent)
            sizes.append(round(memory(process), 1))
            print(f"round {number + 1} of {rounds}: {dict(total)}, {sizes[-1]:.1f} MiB", file=sys.stderr, flush=True)
    later = sizes[rounds // 3 :]
    slope = np.polyfit(np.arange(len(later)) * concurrent / 1000, later, 1)[0] if len(later) > 1 else 0.0
    counts = {kind: total[kind] for kind in ("served", "refused", "lost")}
    return counts | {"MiB": sizes, "slope": round(float(slope), 2)}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrent", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run" / "checkpoints" / "best.ckpt"
        save_checkpoint(path)
        command = [sys.executable, "-m", "captioning.demo", f"checkpoint={path}", "port=0", "device=cpu", "examples=[]"]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        try:
            address = process.stdout.readline().split()[1]
            rounds = 3 if given.quick else given.rounds
            result = asyncio.run(load(address, process.pid, concurrent=given.concurrent, rounds=rounds))
        finally:
            process.terminate()
            result_code = process.wait(30)
    print(json.dumps(result))
    assert result_code == 0, f"the demo ended with status {result_code}"
    return result


if __name__ == "__main__":
    main()
