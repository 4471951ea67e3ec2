import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.containers.labels import address_of, is_protected, own_ids
from bastion.model import INSTANCE, NAME, Address

ID = "0123456789ab" + "cdef" * 13


def bastion(**parts: str) -> dict[str, str]:
    return {f"bastion.{part}": value for part, value in parts.items()}


def compose(project: str = "shop", service: str = "front", number: str = "2", **more: str) -> dict[str, str]:
    labels = {"project": project, "service": service, "container-number": number, "oneoff": "False", **more}
    return {f"com.docker.compose.{key}": value for key, value in labels.items()}


def swarm(service: str = "shop_front", slot: str = "3", stack: str | None = "shop", **more: str) -> dict[str, str]:
    # As an engine has them: com.docker.swarm.task is there, and empty.
    labels = {
        "com.docker.swarm.node.id": "9opfw0jjrrkehjh5mjo34ov36",
        "com.docker.swarm.service.id": "2t1vxpyb6khuq6n5ygn2xfiws",
        "com.docker.swarm.service.name": service,
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "6qgb0pna6iphr7c4ijzuiihaa",
        "com.docker.swarm.task.name": f"{service}.{slot}.6qgb0pna6iphr7c4ijzuiihaa",
    }
    return labels | ({} if stack is None else {"com.docker.stack.namespace": stack}) | more


def lain(pod_group: str = "hello.web.web", namespace: str = "hello", instance: str = "1") -> dict[str, str]:
    labels = {
        "pg_name": pod_group,
        "pg_namespace": namespace,
        "instance_no": instance,
        "version": "3",
        "drift_count": "0",
        "container_index": "0",
        "annotation": "{}",
    }
    return {f"cc.bdp.lain.deployd.{key}": value for key, value in labels.items()}


def test_without_labels_there_is_no_address() -> None:
    assert address_of({}, "web.worker.1", None) is None


def test_the_bastions_labels() -> None:
    labels = bastion(app="web", proc="worker", instance="2")
    assert address_of(labels, "any", "eu") == Address("web", "worker", 2, "eu")


def test_the_app_alone_is_enough() -> None:
    assert address_of(bastion(app="web"), "any", None) == Address("web", "main", 1)
    assert address_of(bastion(app="web", proc="worker"), "any", None) == Address("web", "worker", 1)
    assert address_of(bastion(proc="worker", instance="1"), "any", None) is None


def test_what_the_bastions_labels_leave_out_is_the_platforms() -> None:
    assert address_of(bastion(app="web") | compose(), "any", None) == Address("web", "front", 2)
    assert address_of(bastion(app="web", proc="x") | swarm(), "any", None) == Address("web", "x", 3)


def test_compose_and_swarm_and_lain() -> None:
    assert address_of(compose(), "shop-front-2", None) == Address("shop", "front", 2)
    assert address_of(swarm(), "any", None) == Address("shop", "front", 3)
    assert address_of(lain(), "hello.web.web.v3-i1-d0", None) == Address("hello", "web", 1)


def test_the_first_that_fits_is_taken() -> None:
    everything = bastion(app="a", proc="b", instance="9") | compose() | swarm() | lain()
    name = "hello.web.web.v3-i1-d0"
    assert address_of(everything, name, None) == Address("a", "b", 9)
    assert address_of(compose() | swarm() | lain(), name, None) == Address("shop", "front", 2)
    assert address_of(swarm() | lain(), name, None) == Address("shop", "front", 3)


MALFORMED = ["", " ", "a b", "a\n", "\x1b[2J", "a/b", "-a", ".a", "a.", "a..b", "wéb", "a" * 129, "a+b"]
NO_INSTANCE = ["", "x", "-1", "007", "1.0", " 1", "1\n", "٢", str(10**12)]


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_name_gives_no_address_from_its_source(value: str) -> None:
    assert address_of(bastion(app=value, proc="worker", instance="1"), "any", None) is None
    assert address_of(bastion(app="web", proc=value, instance="1"), "any", None) is None
    assert address_of(compose(project=value), "any", None) is None
    assert address_of(compose(service=value), "any", None) is None
    assert address_of(swarm(service=value, stack=None), "any", None) is None
    assert address_of(lain(f"{value}.web.web", value), f"{value}.web.web.v3-i1-d0", None) is None
    assert address_of(bastion(app=value) | compose(), "any", None) == Address("shop", "front", 2)


@pytest.mark.parametrize("value", NO_INSTANCE)
def test_a_malformed_instance_gives_no_address_from_its_source(value: str) -> None:
    assert address_of(bastion(app="web", proc="worker", instance=value), "any", None) is None
    assert address_of(compose(number=value), "any", None) is None
    assert address_of(swarm(slot=value), "any", None) is None
    assert address_of(lain(instance=value), f"hello.web.web.v3-i{value}-d0", None) is None


def test_a_container_of_compose_run_is_no_instance_of_the_service() -> None:
    assert address_of(compose(number="1", oneoff="True"), "shop-front-run-1", None) is None


def test_compose_allows_dots_in_a_service() -> None:
    assert address_of(compose(service="front.v2"), "any", None) == Address("shop", "front.v2", 2)


def test_a_swarm_service_of_no_stack_is_an_app() -> None:
    assert address_of(swarm("redis", "1", None), "any", None) == Address("redis", "main", 1)


def test_a_global_swarm_service_has_one_instance_on_its_node() -> None:
    assert address_of(swarm(slot="9opfw0jjrrkehjh5mjo34ov36"), "any", None) == Address("shop", "front", 1)


@pytest.mark.parametrize(
    "labels",
    [
        swarm(stack="bank"),  # a service that says it is of another stack
        swarm(stack=""),
        swarm("shop_", "1"),
        swarm(**{"com.docker.swarm.task.name": "bank_front.3.6qgb0pna6iphr7c4ijzuiihaa"}),
        swarm(**{"com.docker.swarm.task.name": "shop_front.3.7qgb0pna6iphr7c4ijzuiihaa"}),
        swarm(**{"com.docker.swarm.task.name": ""}),
        swarm(**{"com.docker.swarm.task.id": ""}),
        swarm(**{"com.docker.swarm.service.name": ""}),
        {key: value for key, value in swarm().items() if key != "com.docker.swarm.task.id"},
    ],
)
def test_swarm_labels_that_contradict_each_other_give_no_address(labels: dict[str, str]) -> None:
    assert address_of(labels, "any", None) is None


@pytest.mark.parametrize(
    ("name", "labels", "address"),
    [
        ("hello.web.web.v0-i12-d3", lain(instance="12"), Address("hello", "web", 12)),
        ("hello.web.web.v0-i1-d0-c1", lain(), Address("hello", "web", 1)),
        (
            "resource.redis.hello.worker.redis.v0-i1-d0",
            lain("resource.redis.hello.worker.redis", "resource.redis.hello"),
            Address("resource.redis.hello", "redis", 1),
        ),
        # deployd lets an app's own labels replace its own: another app's name is no way in
        ("evil.web.web.v3-i1-d0", lain(), None),
        ("evil.web.web.v3-i1-d0", lain("evil.web.web", "hello"), None),
        ("evil.web.web.v3-i1-d0", lain("hello.web.web", "evil"), None),
        ("hello.web.web.v3-i2-d0", lain(), None),
        ("hello.portal.portal-x.v3-i1-d0", lain("hello.portal.portal-x", "client"), None),
        ("hello.web.web", lain(), None),
        ("hello.web.web.v3-i1-d0\n", lain(), None),
        ("hello.web.v3-i1-d0", lain("hello.web"), None),
        ("web.v3-i1-d0", lain("web", ""), None),
    ],
)
def test_lain_labels_count_only_as_far_as_the_name_agrees(
    name: str, labels: dict[str, str], address: Address | None
) -> None:
    assert address_of(labels, name, None) == address


KEYS = sorted(bastion(app="", proc="", instance="") | compose() | swarm() | lain())
values = st.sampled_from(["shop", "shop_x", "1", "shop_x.1.t", "t", "hello.web.web", "", "True"]) | st.text(max_size=8)


@given(st.dictionaries(st.sampled_from(KEYS), values), st.text(max_size=8) | st.just("hello.web.web.v3-i1-d0"))
def test_whatever_labels_say_an_address_is_well_formed(labels: dict[str, str], name: str) -> None:
    address = address_of(labels, name, None)
    if address is not None:
        assert NAME.fullmatch(address.app)
        assert NAME.fullmatch(address.proc or "")
        assert INSTANCE.fullmatch(str(address.instance))


@pytest.mark.parametrize(
    ("labels", "protected", "answer"),
    [
        ({}, (), False),
        ({}, ("bastion-db",), False),
        ({}, ("the-bastion",), True),
        ({}, ("the-bastio",), False),
        ({}, (ID,), True),
        ({}, (ID[:12],), True),
        ({}, (ID[:11],), False),
        ({}, (ID[1:13],), False),
        ({}, ("",), False),
        ({"bastion.protected": "true"}, (), True),
        ({"bastion.protected": "yes"}, (), True),
        ({"bastion.protected": ""}, (), True),
        ({"bastion.protected": "false"}, (), False),
        ({"bastion.protected": "false"}, ("the-bastion",), True),
    ],
)
def test_protection(labels: dict[str, str], protected: tuple[str, ...], answer: bool) -> None:
    assert is_protected(ID, "the-bastion", labels, protected) is answer


DOCKER = f"""\
1437 1170 0:92 / / rw,relatime master:406 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/{"a" * 64}
1446 1437 8:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw
1447 1437 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw
1448 1437 8:1 /srv/{"b" * 64}/data /data rw,relatime - ext4 /dev/sda1 rw
"""
PODMAN = f"""\
512 498 0:25 /containers/storage/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw
"""
MACHINE = (
    "22 29 0:20 / /proc rw,nosuid shared:13 - proc proc rw\n29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
)


@pytest.mark.parametrize(
    ("hostname", "mountinfo", "ids"),
    [
        ("bastion", DOCKER, (ID,)),
        ("bastion", PODMAN, (ID,)),
        ("bastion", MACHINE, ()),
        ("bastion", "", ()),
        ("bastion", "garbage\n\n", ()),
        (ID[:12], "", (ID[:12],)),
        (ID[:12], DOCKER, (ID[:12], ID)),
        ("dead", MACHINE, ()),
    ],
)
def test_the_container_that_the_bastion_runs_in(hostname: str, mountinfo: str, ids: tuple[str, ...]) -> None:
    assert own_ids(hostname, mountinfo) == ids
