"""A trace has the exact peak, few points, and ends with what it belongs to."""

import threading
import time

import pytest

from animation_studio.gpu.nvml import NvmlMeter
from animation_studio.gpu.trace import MemoryTrace
from tests.support.nvml_standin import DRIVER_NOT_LOADED, GIB


def sampling():
    return [thread for thread in threading.enumerate() if "memory-trace" in thread.name]


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_it_follows_the_memory_and_knows_the_peak(gpu):
    with MemoryTrace(NvmlMeter(), 0, interval=0.002) as trace:
        assert len(sampling()) == 1
        for used in (2 * GIB, 9 * GIB, GIB):
            gpu.set(used=used)
            until(lambda used=used: trace.as_points()[-1][1] == used)
    points = trace.as_points()
    assert points[0][1] == 0
    assert points[-1][1] == GIB
    assert trace.peak == 9 * GIB
    assert [seconds for seconds, _ in points] == sorted(seconds for seconds, _ in points)
    assert not sampling()


def test_it_ends_with_an_exception_and_with_a_second_stop(gpu):
    with pytest.raises(ZeroDivisionError), MemoryTrace(NvmlMeter(), 0) as trace:
        raise ZeroDivisionError
    assert not sampling()
    samples = trace.samples
    trace.stop()
    assert trace.samples == samples == 2


def test_before_its_start_it_costs_nothing(gpu):
    trace = MemoryTrace(NvmlMeter(), 0)
    trace.stop()
    assert trace.peak is None
    assert trace.as_points() == []
    assert not sampling()


def test_a_long_trace_keeps_few_points_and_every_peak(gpu):
    with MemoryTrace(NvmlMeter(), 0, interval=0.0001, points=8) as trace:
        for number in range(100):
            gpu.set(used=(number % 7) << 30)
            samples = trace.samples
            until(lambda samples=samples: trace.samples > samples)
    assert trace.samples > 100
    assert 4 <= len(trace.as_points()) <= 9
    assert max(used for _, used in trace.as_points()) == trace.peak == 6 * GIB


def test_what_cannot_be_read_is_left_out(gpu):
    meter = NvmlMeter(retry_seconds=0)
    with MemoryTrace(meter, 0, interval=0.001) as trace:
        gpu.fail(DRIVER_NOT_LOADED)
        until(lambda: meter.read(0) is None)
        gpu.set(used=GIB)
        gpu.fail(0)
        until(lambda: trace.peak == GIB)
    assert trace.as_points()[-1][1] == GIB
