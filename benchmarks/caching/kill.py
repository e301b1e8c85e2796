"""SIGKILL at random moments and before every step of a write: what a resumed recording has lost, and whether its bytes
are those of an undisturbed one.

Each recording of a tiny model is killed at random moments, and resumed after each, until it is done; this goes on until
there were so many kills. After every kill all files on disk are verified against their hashes, and every shard that the
killed process had told of must be there: what is lost is at most the shard in work.

    python benchmarks/caching/kill.py --kills 50 --out reports/caching_kill.json
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import killing
import torch

from activation_cache import plan as planning


def at_random(plan: planning.RecordingPlan, folder: Path, kills: int, seed: int) -> dict:
    """Recordings killed at random until there were so many kills."""
    whole = folder / "whole"
    seconds = killing.seconds_undisturbed(plan, whole)
    expected, draw = killing.content(whole), random.Random(seed)
    done, equal, recordings = 0, 0, 0
    while done < kills:
        out = folder / "killed"
        done += killing.kill_until_done(plan, out, seconds, draw, kills - done)
        equal += killing.content(out) == expected
        recordings += 1
        shutil.rmtree(out)
    return {"kills": done, "recordings": recordings, "byte-identical": equal}


def at_points(plan: planning.RecordingPlan, folder: Path) -> dict:
    """One recording killed before every single step of every write, and resumed each time to a whole one."""
    expected, kills, equal = killing.content(folder / "whole"), 0, 0
    for point in killing.POINTS:
        number = 1
        while True:
            out = folder / f"{point}-{number}"
            code, words = killing.end(killing.start(plan, out, killing.dies_at(point, number)))
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killing.nothing_is_torn(out, len(words))
            code, _ = killing.end(killing.start(plan, out))
            kills += 1
            equal += code == 0 and killing.content(out) == expected
            shutil.rmtree(out)
            number += 1
    return {"kills": kills, "byte-identical": equal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("reports/caching_kill.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    planning.TOKENS_PER_SHARD = 160
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        plan = killing.planned(Path(temporary), 100)
        result = {
            "command": f"python benchmarks/caching/kill.py --kills {arguments.kills} --seed {arguments.seed}",
            "shards": plan.manifest.n_shards,
            "at random": at_random(plan, Path(temporary), arguments.kills, arguments.seed),
            "before every step of a write": at_points(plan, Path(temporary)),
        }
    result["parent's cpu_seconds"] = round(time.process_time() - began, 1)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
