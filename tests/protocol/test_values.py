"""The values log under thousands of orders of its writers: nothing acknowledged is lost, nothing deleted comes back."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.errors import BackstayError
from tests.protocol.scheduling import Profile
from tests.protocol.values_variants import VARIANTS
from tests.protocol.values_world import ORDINARY, SLOW, ValuesRunner
from tests.protocol.variants import Variant

SCHEDULES = int(os.environ.get("BACKSTAY_SCHEDULES", "1000")) // 50
SEARCHED = 3000  # seeds, when the known one shows a weakness no more


@pytest.mark.property
@pytest.mark.parametrize("profile", [ORDINARY, SLOW], ids=["ordinary", "slow"])
@settings(
    max_examples=SCHEDULES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
@given(seed=st.integers(0, 2**32))
def test_every_order_keeps_what_was_promised(profile: Profile, seed: int) -> None:
    ValuesRunner(profile).run(seed)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_weakened_protocol_is_found_out(variant: Variant) -> None:
    for seed in (variant.shown_by, *range(SEARCHED)):
        with ExitStack() as weakened:
            for patch in variant.applied():
                weakened.enter_context(patch)
            try:
                ValuesRunner(variant.profile).run(seed)
            except (AssertionError, BackstayError) as error:
                print(f"seed {seed}: {error}")
                return
    pytest.fail(f"{SEARCHED} schedules do without this: {variant.name}")
