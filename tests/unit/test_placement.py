from __future__ import annotations

import pytest

from rlcore.placement import Bundle, Reservation, _describe_asked, reserve

BUNDLES = (
    Bundle(role="rollout", num_cpus=1),
    Bundle(role="learner", num_cpus=1, num_gpus=0.5),
    Bundle(role="learner", num_cpus=1, num_gpus=0.5),
)


def test_a_role_finds_its_bundles_in_order():
    reservation = Reservation(group=None, bundles=BUNDLES)
    assert [reservation.indices(role) for role in ("rollout", "learner", "reward")] == [[0], [1, 2], []]


def test_a_guest_shares_its_hosts_bundle():
    shared = Bundle(role="learner", guest="rollout", num_cpus=2, num_gpus=1)
    reservation = Reservation(group=None, bundles=(shared, shared))
    assert reservation.indices("learner") == reservation.indices("rollout") == [0, 1]
    assert _describe_asked([shared]) == "1 x learner with rollout (2 CPU, 1 GPU); together 2 CPU, 1 GPU"


def test_ray_is_asked_for_nothing_that_is_zero():
    assert [bundle.resources for bundle in BUNDLES[:2]] == [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}]


def test_what_was_asked_is_said_by_role():
    expected = "1 x rollout (1 CPU, 0 GPU), 2 x learner (1 CPU, 0.5 GPU); together 3 CPU, 1 GPU"
    assert _describe_asked(BUNDLES) == expected


def test_a_bundle_of_nothing_is_refused_before_ray_is_asked():
    with pytest.raises(ValueError, match="judge"):
        reserve([Bundle(role="judge")], timeout_s=1)
