"""How many requests `pipeline serve` answers, beside the bare backbone; and whether hostile uploads stop it.

    python benchmarks/bench_serve.py --model my-city/models/localiser --photos photos/ --hostile 1000

Without --model, a localiser with untrained heads is served: it takes as long. Clients and service share the
machine. Each client sends its next photo when it has the answer to the last one.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import io
import itertools
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine
from PIL import Image

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.photos import photos_of
from pipeline.serve.app import make_app
from pipeline.serve.limits import Limits
from tests.pipeline.locate.test_locate import recipe, save_localiser, scene
from tests.support.uploads import FORM, ask, form, hostile_requests, send, serving

LIMITS = Limits(20_000_000, 20, 64_000_000, 60.0)


def contents(folder, side):
    """Photos as JPEGs, their longer side at most `side` pixels."""
    images = [scene(4000, 3000, seed=seed) for seed in range(16)]
    if folder is not None:
        images = [Image.open(path).convert("RGB") for path in photos_of([folder])[:16]]
    photos = []
    for image in images:
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        photos.append(file.getvalue())
    return photos


def bare(localiser, at_once, seconds):
    """Photos per second of the backbone alone, already decoded, and CPU milliseconds per photo."""
    side = localiser.backbone.image_size
    noise = np.random.default_rng(0).integers(0, 255, (at_once, side, side, 3), dtype=np.uint8)
    pixels = torch.from_numpy(noise)
    localiser.backbone(pixels)
    return rate_of(lambda _: localiser.backbone(pixels), at_once, seconds)


def rate_of(work, photos, seconds):
    """Photos per second of calls that take some photos, and CPU milliseconds per photo."""
    started, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        work(done)
        done += photos
    return done / (time.perf_counter() - started), (time.process_time() - cpu) / done * 1e3


def load(port, photos, clients, seconds):
    """Requests per second, CPU milliseconds per request with its client's, and all times in seconds."""
    times, lock = [], threading.Lock()
    bodies = [form([photo]) for photo in photos]
    stop = time.perf_counter() + seconds

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for number in itertools.count(first):
            started = time.perf_counter()
            if started > stop:
                break
            connection.request("POST", "/locate", bodies[number % len(bodies)], {"Content-Type": FORM})
            reply = connection.getresponse()
            reply.read()
            if reply.status != 200:
                raise SystemExit(f"status {reply.status}")
            with lock:
                times.append(time.perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(times) / (time.perf_counter() - started)
    return rate, (time.process_time() - cpu) / len(times) * 1e3, times


def attack(port, photos, count):
    """Send hostile requests; return how many got each status (0: the connection was closed)."""
    statuses = collections.Counter()
    for _, headers, body in hostile_requests(count, seed=1):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/locate", body, headers)
            statuses[connection.getresponse().status] += 1
        except (ConnectionError, http.client.HTTPException):
            statuses[0] += 1
        finally:
            connection.close()
    if send(port, photos[:1]).status != 200:
        raise SystemExit("the service no longer answers")
    return statuses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--side", type=int, default=1600)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or save_localiser(Path(scratch) / "localiser", recipe(), calibrated=True)
        localiser = PhotoLocaliser.load(model, device=options.device, crops=1)
    photos = contents(options.photos, options.side)
    size = np.mean([*map(len, photos)]) / 1e3
    print(f"{machine('torch')}, {torch.get_num_threads()} threads; photos of {size:.0f} kB")
    with serving(make_app(localiser, LIMITS)) as port:
        send(port, photos)
        for clients in options.clients:
            floor, floor_cpu = bare(localiser, min(clients, 32), options.seconds / 2)
            alone, alone_cpu = rate_of(
                lambda done: localiser.locate(photos[done % len(photos)]), 1, options.seconds / 2
            )
            rate, cpu, times = load(port, photos, clients, options.seconds)
            p50, p95 = np.percentile(times, [50, 95]) * 1e3
            print(
                f"{clients:3} clients: {rate:5.1f} requests/s, median {p50:5.0f} ms, p95 {p95:5.0f} ms, "
                f"CPU {cpu:4.1f} ms each; ratio {cpu / floor_cpu:.2f} to the backbone alone ({floor:.1f}/s), "
                f"{cpu / alone_cpu:.2f} to locate in Python ({alone:.1f}/s)",
                flush=True,
            )
        if options.hostile:
            started = time.perf_counter()
            statuses = attack(port, photos, options.hostile)
            counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
            print(f"{options.hostile} hostile uploads in {time.perf_counter() - started:.0f} s: {counts}")
            print(ask(port, "/health").body.decode())


if __name__ == "__main__":
    main()
