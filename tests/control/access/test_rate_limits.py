"""Rate limits: a window that moves with a clock that never jumps."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.control.access import rate_limits
from backstay.control.access.rate_limits import Rate, RateLimits
from backstay.errors import InvalidRequest, RateLimited
from backstay.testing import FakeClock


@given(st.integers(1, 5), st.integers(1, 20), st.lists(st.integers(0, 12), max_size=40))
def test_no_window_has_more_than_allowed_and_none_is_refused_without_need(
    times: int, seconds: int, pauses: list[int]
) -> None:
    clock = FakeClock()
    limits = RateLimits(clock, {"api": Rate(times=times, seconds=seconds)})
    let_in: list[float] = []
    for pause in pauses:
        clock.advance(pause)
        now = clock.monotonic()
        recent = [at for at in let_in if at > now - seconds]
        if len(recent) < times:
            limits.hit("api", "k")
            let_in.append(now)
            continue
        with pytest.raises(RateLimited) as caught:
            limits.hit("api", "k")
        assert caught.value.retry_after == recent[0] + seconds - now


@given(st.floats(0.01, 100, allow_nan=False))
def test_who_waits_as_long_as_is_said_is_let_in(seconds: float) -> None:
    clock = FakeClock()
    limits = RateLimits(clock, {"api": Rate(times=1, seconds=seconds)})
    limits.hit("api", "k")
    with pytest.raises(RateLimited) as caught:
        limits.hit("api", "k")
    assert caught.value.retry_after >= 1
    clock.advance(caught.value.retry_after)
    limits.hit("api", "k")


def test_each_has_a_window_of_its_own() -> None:
    limits = RateLimits(FakeClock(), {"api": Rate(times=1, seconds=1), "restore": Rate(times=1, seconds=1)})
    limits.hit("api", "a")
    limits.hit("api", "b")
    limits.hit("restore", "a")
    with pytest.raises(RateLimited):
        limits.hit("api", "a")


def test_the_wall_clock_does_not_count() -> None:
    clock = FakeClock()
    limits = RateLimits(clock, {"api": Rate(times=1, seconds=60)})
    limits.hit("api", "a")
    clock.jump(-86400)
    clock.advance(60)
    limits.hit("api", "a")
    clock.jump(86400)
    with pytest.raises(RateLimited):
        limits.hit("api", "a")


def test_looking_does_not_count() -> None:
    limits = RateLimits(FakeClock(), {"api": Rate(times=1, seconds=60)})
    for _ in range(3):
        limits.look("api", "a")
    limits.hit("api", "a")
    with pytest.raises(RateLimited):
        limits.look("api", "a")


def test_what_is_not_configured_has_its_usual_limit() -> None:
    limits = RateLimits(FakeClock(), {"api": Rate(times=1, seconds=1)})
    for _ in range(5):
        limits.hit("login", "a")
    with pytest.raises(RateLimited, match="limit for login is 5 in 60 seconds"):
        limits.hit("login", "a")


def test_many_strangers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MOST_KEYS", 10)
    limits = RateLimits(FakeClock(), {"api": Rate(times=1, seconds=60)})
    for n in range(50):
        limits.hit("api", f"stranger {n}")
    assert len(limits._seen) == 10
    with pytest.raises(RateLimited):
        limits.hit("api", "stranger 49")


@pytest.mark.parametrize(("times", "seconds"), [(0, 1), (-1, 1), (1, 0), (1, -1), (1, 86401), (1, float("nan"))])
def test_limits_that_mean_nothing_are_refused(times: int, seconds: float) -> None:
    with pytest.raises(InvalidRequest):
        Rate(times=times, seconds=seconds)


def test_threads_do_not_get_in_together() -> None:
    limits = RateLimits(FakeClock(), {"api": Rate(times=7, seconds=60)})
    start, let_in = threading.Barrier(8), []

    def try_often() -> None:
        start.wait()
        for _ in range(20):
            try:
                limits.hit("api", "k")
            except RateLimited:
                continue
            let_in.append(1)

    threads = [threading.Thread(target=try_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 7
