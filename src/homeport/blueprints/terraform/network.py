"""The network of a project: databases have addresses in it, and private services answer only what comes from it."""

from __future__ import annotations

from homeport.blueprints.cloudrun.names import short
from homeport.blueprints.terraform.hcl import Block, Ref, Value
from homeport.model.spec import Spec

NETWORK = "google_compute_network.app"
SUBNET = "google_compute_subnetwork.app"


def has_private(spec: Spec) -> bool:
    """Whether services answer each other only: then all their traffic goes through the network."""
    return any(service.kind == "private" for service in spec.services.values())


def network_blocks(spec: Spec, *, databases: bool) -> list[Block]:
    """The network, as far as the project needs one."""
    if not databases and not has_private(spec):
        return []
    own: dict[str, Value] = {
        "name": short(spec.name, 60),
        "auto_create_subnetworks": False,
        "depends_on": [Ref("google_project_service.apis")],
    }
    subnet: dict[str, Value] = {
        "name": short(spec.name, 60),
        "region": Ref("var.region"),
        "network": Ref(f"{NETWORK}.id"),
        "ip_cidr_range": "10.10.0.0/24",
        "private_ip_google_access": True,
    }
    found = [Block("resource", ("google_compute_network", "app"), own), Block("resource", ("google_compute_subnetwork", "app"), subnet)]
    found += _peering(spec.name) if databases else []
    return found + (_way_out(spec.name) if has_private(spec) else [])


def _peering(project: str) -> list[Block]:
    """A range of addresses for Google's managed databases."""
    network = Ref(f"{NETWORK}.id")
    address: dict[str, Value] = {
        "name": short(f"{project}-databases", 60),
        "purpose": "VPC_PEERING",
        "address_type": "INTERNAL",
        "prefix_length": 20,
        "network": network,
    }
    connection: dict[str, Value] = {
        "network": network,
        "service": "servicenetworking.googleapis.com",
        "reserved_peering_ranges": [Ref("google_compute_global_address.databases.name")],
    }
    return [
        Block("resource", ("google_compute_global_address", "databases"), address),
        Block("resource", ("google_service_networking_connection", "app"), connection),
    ]


def _way_out(project: str) -> list[Block]:
    """Where all traffic goes through the network, what is meant for the internet needs a way out of it."""
    router: dict[str, Value] = {"name": short(project, 60), "region": Ref("var.region"), "network": Ref(f"{NETWORK}.id")}
    nat: dict[str, Value] = {
        "name": short(project, 60),
        "region": Ref("var.region"),
        "router": Ref("google_compute_router.app.name"),
        "nat_ip_allocate_option": "AUTO_ONLY",
        "source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    return [Block("resource", ("google_compute_router", "app"), router), Block("resource", ("google_compute_router_nat", "app"), nat)]


def access_blocks(spec: Spec, *, databases: bool) -> list[Block]:
    """How a revision is connected to the network; nothing when there is none."""
    if not databases and not has_private(spec):
        return []
    card: dict[str, Value] = {"network": Ref(f"{NETWORK}.id"), "subnetwork": Ref(f"{SUBNET}.id")}
    egress = "ALL_TRAFFIC" if has_private(spec) else "PRIVATE_RANGES_ONLY"
    return [Block("vpc_access", attributes={"egress": egress}, blocks=[Block("network_interfaces", attributes=card)])]
