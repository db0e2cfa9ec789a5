"""Three hours of talk with a provider that ends each session after an hour and fails three hundred times in between.

Covers B1 to B4, B6 to B9, B11, B14 to B16, B18, B20, C3, C5, E1, E3, F1, F3, G1 and G11 of the failure catalogue,
and the proof of the model links: no lost turn, no doubled item, no silence beyond the budget; the log explains every
reconnect. In ``make test`` a quarter of an hour and thirty faults; whole in ``make prove`` (part ``links``).
"""

from __future__ import annotations

import os

import pytest

from figures import figure, part_counts, parts
from integration.long_call import LongCall, Plan
from integration.long_call_account import UNRECORDED, Account
from openline.core.value import replace

HOUR = 3_600.0


def small_plan(seed: int) -> Plan:
    """A quarter of an hour: faults in the first two thirds, then a calm in which the cap comes near twice."""
    return Plan(
        seed=seed,
        seconds=900.0,
        faults=30,
        storms=((20.0, 500.0),),
        cap_s=240.0,
        rotate_s=200.0,
        rotate_by_s=225.0,
        is_recorded=seed % 2 == 0,
    )


def whole_plan(seed: int) -> Plan:
    """Three hours; an hour and a quarter in the middle is calm, so that a session grows old enough for the cap.

    One seed in three has no recording, and may lose what is said to a provider that hears nothing (``excused``).
    """
    return Plan(
        seed=seed,
        seconds=3 * HOUR,
        faults=figure("links_faults", 300),
        storms=((60.0, 0.75 * HOUR), (2.1 * HOUR, 2.95 * HOUR)),
        cap_s=HOUR,
        rotate_s=55 * 60.0,
        rotate_by_s=58 * 60.0,
        is_recorded=seed % 3 != 0,
    )


def seeds(count: int) -> list[int]:
    return [int(os.environ["OPENLINE_SEED"])] if "OPENLINE_SEED" in os.environ else list(range(1, count + 1))


def judge(plan: Plan) -> Account:
    account = Account(LongCall(plan).play()).take()
    shown = "\n  ".join(account.wrong[:12])
    assert not account.wrong, (
        f"seed {plan.seed}: {len(account.wrong)} things are wrong\n  {shown}\n{account.told()}\nagain: {plan.again}"
    )
    return account


@pytest.mark.parametrize("seed", seeds(2))
def test_a_quarter_of_an_hour_with_thirty_faults(seed: int) -> None:
    account = judge(small_plan(seed))
    assert account.call.rotations >= 1, account.told()
    assert account.call.struck.total() >= account.call.plan.faults, account.told()
    assert account.answered >= len(account.call.said) / 2, account.told()


def test_two_plays_of_a_seed_are_equal() -> None:
    """Or a failure could not be looked into: nothing of a play is left to sockets, threads or the clock."""
    plan = replace(small_plan(4), seconds=240.0, faults=12, storms=((20.0, 220.0),))
    first, second = LongCall(plan).play(), LongCall(plan).play()
    assert first.struck.total() >= 12 and first.facts == second.facts
    assert first.client.frames == second.client.frames


@pytest.mark.parametrize(
    ("seed", "is_recorded", "is_transcoded"), [(11, True, False), (12, False, False), (13, True, True)]
)
def test_a_telephones_quarter_of_an_hour_with_thirty_faults(
    seed: int, is_recorded: bool, is_transcoded: bool
) -> None:
    """G.711 all the way, heard again from the recording or from what was kept of it as it came; or only to here."""
    plan = replace(small_plan(seed), law="pcmu", is_recorded=is_recorded, is_transcoded=is_transcoded)
    account = judge(plan)
    assert account.call.rotations >= 1, account.told()
    assert account.call.struck.total() >= plan.faults, account.told()
    assert account.answered >= len(account.call.said) / 2, account.told()


def test_a_quiet_quarter_of_an_hour_notices_nothing_of_the_cap() -> None:
    """B1: three renewals, no link lost, every turn answered unless its caller talked on."""
    plan = Plan(7, 900.0, 0, ((1.0, 2.0),), cap_s=240.0, rotate_s=200.0, rotate_by_s=225.0)
    account = judge(plan)
    assert account.call.rotations >= 3, account.told()
    assert set(account.settled) <= {"completed", "turn_detected"}, account.told()
    missed = [
        said for said in account.call.said if not said.was_cut and said.word not in account.words_answered
    ]
    assert all(said.how == "stock" for said in missed), "only a slow tool may be overtaken by the next turn"


@pytest.mark.figure_links
@pytest.mark.parametrize("part", range(figure("links", 1)))
def test_three_hours_and_three_hundred_faults(part: int) -> None:
    """``make prove``: several seeds; ``make test`` plays none of them."""
    count = figure("links", 0)
    if count == 0:
        pytest.skip("three hours a seed: make prove plays them")
    if part in parts("links", count):
        account = judge(whole_plan(part + 1))
        print(account.told())
        call = account.call
        assert call.rotations >= 1, account.told()
        assert call.struck.total() >= call.plan.faults, account.told()
        counts = {
            "seeds": 1,
            "recorded": int(call.plan.is_recorded),
            "turns": len(call.said),
            "answered": account.answered,
            "faults": call.struck.total(),
            "reconnects": sum(1 for _, fact in call.facts if fact.TYPE == "openline.link.requested") - 1,
            "renewals": call.rotations,
            "excused": account.settled[UNRECORDED],
        }
        part_counts("links", part, counts)
    print(dict(part_counts("links")))
