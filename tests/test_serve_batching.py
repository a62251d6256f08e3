"""Batches across requests (M40): sizes, waiting, bounds, deadlines, and requests that go away."""

import asyncio
import threading
import time

import numpy as np
import pytest

from carina.serve.batching import Batcher
from carina.serve.problems import ProblemError

CROP = np.zeros((2, 2, 2), np.float32)


class Network:
    """Answers with each crop's mean; can be held up."""

    def __init__(self):
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def __call__(self, crops):
        self.entered.set()
        assert self.go.wait(10)
        self.sizes.append(len(crops))
        return crops.mean(axis=(1, 2, 3)).astype(np.float64)


def run(work, *, size=4, wait_s=0.02, queue=16, deadline_s=5.0):
    """Run ``work(batcher, network)`` in an event loop of its own."""
    network = Network()

    async def inside():
        batcher = Batcher(network, size=size, wait_s=wait_s, queue=queue, deadline_s=deadline_s)
        batcher.start()
        try:
            return await work(batcher, network)
        finally:
            network.go.set()
            await batcher.stop()

    return asyncio.run(inside()), network


async def occupied(batcher, network):
    """A request that holds the network up."""
    network.go.clear()
    first = asyncio.create_task(batcher.classify([CROP]))
    assert await asyncio.to_thread(network.entered.wait, 10)
    return first


def test_everybody_gets_their_own_answer():
    async def work(batcher, _):
        requests = [batcher.classify([CROP + n, CROP + n + 0.5]) for n in range(8)]
        return await asyncio.gather(*requests)

    answers, _ = run(work)
    assert answers == [[n, n + 0.5] for n in range(8)]


def test_requests_that_arrive_together_share_a_batch():
    async def work(batcher, _):
        await asyncio.gather(*(batcher.classify([CROP]) for _ in range(4)))

    _, network = run(work)
    assert network.sizes == [4]


def test_no_batch_is_larger_than_allowed():
    async def work(batcher, _):
        await asyncio.gather(*(batcher.classify([CROP] * 3) for _ in range(5)))

    _, network = run(work)
    assert sum(network.sizes) == 15
    assert max(network.sizes) == 4


def test_a_lone_request_waits_no_longer_than_asked():
    async def work(batcher, _):
        begin = time.perf_counter()
        await batcher.classify([CROP])
        return time.perf_counter() - begin

    seconds, _ = run(work, size=8, wait_s=0.05)
    assert 0.05 <= seconds < 1.0


def test_a_full_queue_refuses():
    async def work(batcher, network):
        first = await occupied(batcher, network)
        waiting = [asyncio.create_task(batcher.classify([CROP])) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as refusal:
            await batcher.classify([CROP])
        network.go.set()
        await asyncio.gather(first, *waiting)
        return refusal.value

    refusal, _ = run(work)
    assert (refusal.status, refusal.headers()) == (503, {"Retry-After": "1"})


def test_a_request_that_goes_away_leaves_the_batch():
    async def work(batcher, network):
        first = await occupied(batcher, network)
        gone = asyncio.create_task(batcher.classify([CROP] * 3))
        stays = asyncio.create_task(batcher.classify([CROP + 7]))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        network.go.set()
        await first
        return await stays

    answer, network = run(work)
    assert answer == [7.0]
    assert network.sizes == [1, 1]


def test_a_request_that_waits_too_long_is_given_up_and_leaves():
    async def work(batcher, network):
        first = await occupied(batcher, network)
        with pytest.raises(ProblemError) as refusal:
            await batcher.classify([CROP] * 2)
        network.go.set()
        await asyncio.gather(first, return_exceptions=True)
        return refusal.value.status

    status, network = run(work, deadline_s=0.3)
    assert status == 504
    assert network.sizes == [1]


def test_a_failing_network_fails_its_batch_only():
    async def work(batcher, _):
        with pytest.raises(ValueError, match="all input arrays must have the same shape"):
            await asyncio.gather(batcher.classify([CROP]), batcher.classify([CROP[:1]]))
        return await batcher.classify([CROP + 1])

    answer, _ = run(work)
    assert answer == [1.0]
