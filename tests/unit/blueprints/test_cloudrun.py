"""Cloud Run's YAML, read and written."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.cloudrun import CloudRunReader, CloudRunWriter
from homeport.blueprints.convert import convert, read_back
from homeport.blueprints.manifests import parse_manifests
from homeport.blueprints.registry import reader
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import Postgres
from homeport.model.env import EnvGroup, FromAddOn, FromService, GeneratedValue, PlainValue, SecretValue, Template
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    Domain,
    FunctionService,
    HealthCheck,
    Hook,
    PrivateService,
    Resources,
    Restart,
    Scale,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

MANY = settings(max_examples=80, deadline=None, suppress_health_check=[Check.too_slow])
IMAGE = Build(builder="image", image="eu-docker.pkg.dev/acme/shop/web:1")

BY_HAND = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  namespace: '1234'
  labels: {cloud.googleapis.com/location: europe-west1, team: a}
  annotations:
    run.googleapis.com/ingress: all
    run.googleapis.com/description: Says hello
    run.googleapis.com/launch-stage: BETA
spec:
  template:
    metadata:
      name: hello-00001
      annotations:
        autoscaling.knative.dev/minScale: '1'
        autoscaling.knative.dev/maxScale: '10'
        run.googleapis.com/cpu-throttling: 'false'
        run.googleapis.com/cloudsql-instances: acme:europe-west1:db
        run.googleapis.com/vpc-access-connector: c
        run.googleapis.com/sessionAffinity: true
    spec:
      containerConcurrency: 80
      timeoutSeconds: 300
      serviceAccountName: web@acme.iam.gserviceaccount.com
      containers:
        - image: eu-docker.pkg.dev/acme/shop/hello:1
          ports: [{name: h2c, containerPort: 3000}]
          args: [serve, $(NOT_REPLACED)]
          env:
            - {name: MODE, value: prod}
            - {name: PORT, value: "1"}
            - {name: KEY, valueFrom: {secretKeyRef: {name: shop-key, key: "3"}}}
          resources: {limits: {cpu: 1000m, memory: 512Mi}}
          startupProbe: {httpGet: {path: /up, port: 3000}, periodSeconds: 5, failureThreshold: 6}
          livenessProbe: {httpGet: {path: /live}, failureThreshold: 3}
          volumeMounts: [{name: s, mountPath: /keys}, {name: t, mountPath: /tmp/x}, {name: n, mountPath: /n}, {name: b, mountPath: /b}]
          mystery: 1
        - {image: sidecar, name: proxy}
      volumes:
        - {name: s, secret: {secretName: shop-key, items: [{key: latest, path: k}]}}
        - {name: t, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
        - {name: n, nfs: {server: 10.0.0.1, path: /share, readOnly: true}}
        - {name: b, csi: {driver: gcsfuse.run.googleapis.com, volumeAttributes: {bucketName: files}}}
  traffic: [{revisionName: hello-00001, percent: 90}, {latestRevision: true, percent: 10, tag: next}]
"""


def read(text: str, name: str = "service.yaml") -> Reading:
    return CloudRunReader().read(MemoryTree({name: text}, name="shop"), name)


def test_a_service_as_google_writes_it_becomes_a_web_service() -> None:
    """Scale, probes, variables, secrets, volumes and the port are honoured; Google's own settings are kept."""
    service = read(BY_HAND).spec.services["hello"]
    assert isinstance(service, WebService)
    assert service.port == 3000 and service.protocol == "h2c" and service.sticky and service.region == "europe-west1"
    assert (service.scale.min, service.scale.max, service.scale.hard_concurrency, service.scale.scale_to_zero) == (1, 10, 80, False)
    assert service.env == {"MODE": PlainValue(value="prod"), "KEY": SecretValue(name="shop-key")}
    assert service.command == ("serve", "$(NOT_REPLACED)")
    assert service.health == HealthCheck(path="/up", interval=timedelta(seconds=5), deadline=timedelta(seconds=30))
    assert service.checks[0].role == "live" and service.checks[0].path == "/live"
    assert service.resources.cpu == 1 and service.resources.memory == 512 << 20
    assert [disk.source for disk in service.disks] == ["shop-key", "", "nfs://10.0.0.1/share", "gs://files"]
    kept = service.extensions["cloudrun"]
    assert kept["timeoutSeconds"] == 300 and kept["sidecars"] == [{"image": "sidecar", "name": "proxy"}] and len(kept["traffic"]) == 2
    assert kept["annotations"]["run.googleapis.com/cloudsql-instances"] == "acme:europe-west1:db"


def test_every_leaf_has_one_fate_and_a_reason() -> None:
    """The account covers the file leaf by leaf; only what nobody knows is unknown."""
    reading = read(BY_HAND)
    assert len(reading.keys) == len(leaves(parse_manifests("service.yaml", BY_HAND).data))
    assert [key.path.rpartition(".")[2] for key in reading.by_fate(Fate.UNKNOWN)] == ["mystery"]
    assert all(key.reason for key in reading.keys if key.fate is not Fate.HONOURED)


def test_what_was_read_is_written_again_without_loss() -> None:
    """A file with Google's own settings survives the way there and back."""
    spec = read(BY_HAND).spec
    written = CloudRunWriter().write(spec)
    assert [loss.path for loss in written.losses] == []
    assert CloudRunReader().read(MemoryTree(written.files, name="shop"), "service.yaml").spec == spec


def test_jobs_and_worker_pools_are_read() -> None:
    """A job of Google's own is a job; a worker pool is a worker with a fixed number of instances."""
    job = "apiVersion: run.googleapis.com/v1\nkind: Job\nmetadata: {name: seed}\nspec:\n  template:\n    spec:\n      taskCount: 3\n"
    job += "      template: {spec: {maxRetries: 2, timeoutSeconds: 600, containers: [{image: a, args: [seed]}]}}\n"
    pool = "apiVersion: run.googleapis.com/v1\nkind: WorkerPool\n"
    pool += "metadata: {name: w, annotations: {run.googleapis.com/manualInstanceCount: '4'}}\n"
    pool += "spec: {template: {spec: {containers: [{image: a}]}}}\n"
    spec = read(job + "---\n" + pool).spec
    seed, worker = spec.services["seed"], spec.services["w"]
    assert isinstance(seed, CronService) and seed.job and seed.restart.max_retries == 2 and seed.timeout == timedelta(minutes=10)
    assert isinstance(worker, WorkerService) and worker.scale.instances == 4


RICH = Spec(
    name="shop",
    services={
        "web": WebService(
            build=IMAGE,
            port=3000,
            command="node a.js",
            env={"A": PlainValue(value="$(x)\n"), "KEY": SecretValue(), "B": SecretValue(name="other")},
            health=HealthCheck(path="/up", interval=timedelta(seconds=5), deadline=timedelta(seconds=60), restart_after=4),
            scale=Scale(min=0, max=9, scale_to_zero=True, hard_concurrency=50),
            resources=Resources(cpu=2, memory=1 << 30),
            sticky=True,
            disks=(
                Disk(name="tmp", mount_path="/t", kind="tmpfs", size=1 << 20),
                Disk(name="b", mount_path="/b", kind="cluster", source="gs://x"),
            ),
            default_domain=False,
            region="europe-west1",
            release_command=Hook(command="migrate", timeout=timedelta(seconds=90)),
        ),
        "api": PrivateService(build=IMAGE, protocol="h2c", scale=Scale(instances=3), health=HealthCheck(kind="tcp")),
        "jobs": WorkerService(build=IMAGE, command="work | log", scale=Scale(instances=2), resources=Resources(cpu=0.5)),
        "nightly": CronService(
            build=IMAGE,
            schedule="17 3 * * *",
            timezone="Europe/Berlin",
            concurrency="allow",
            timeout=timedelta(seconds=60),
            restart=Restart(policy="on-failure", max_retries=2),
        ),
        "once": CronService(build=IMAGE, schedule="", job=True, restart=Restart(policy="never")),
    },
)


def test_what_cloud_run_can_say_reads_back() -> None:
    """A project over several files is found again whole; what is listed are instructions only."""
    written = CloudRunWriter().write(RICH)
    assert read_back(RICH, written) == RICH
    assert {loss.path for loss in written.losses} == {
        "services.api.kind",
        "services.nightly.schedule",
        "services.once.job",
        "services.web.release_command.order",
    }
    assert next(iter(written.files)) == "service.yaml" and "cloudrun-job-nightly.yaml" in written.files
    for text in written.files.values():
        assert len(list(yaml.safe_load_all(text))) == 1


def test_what_cloud_run_would_not_do_is_listed() -> None:
    """Add-ons, functions, domains, composed values and disks are losses with a reason; no secret is written."""
    spec = Spec(
        name="shop",
        services={
            "web": WebService(
                env={
                    "URL": FromAddOn(addon="db"),
                    "API": FromService(service="api", property="url"),
                    "G": GeneratedValue(),
                    "PORT": PlainValue(value="1"),
                    "T": Template(parts=(PlainValue(value="a"), SecretValue(name="S"))),
                    "D": SecretValue(default="hunter2"),
                },
                env_groups=("g",),
                domains=(Domain(host="a.example.com"),),
                disks=(Disk(mount_path="/data"),),
            ),
            "api": PrivateService(build=IMAGE),
            "fn": FunctionService(),
            "site": StaticService(publish="dist"),
        },
        addons={"db": Postgres()},
        env_groups={"g": EnvGroup(env={"L": PlainValue(value="x")})},
    )
    written = CloudRunWriter().write(spec)
    found = {loss.path: loss.reason for loss in written.losses}
    for path in (
        "addons.db",
        "services.fn.build",
        "services.web.domains",
        "services.web.disks[0]",
        "services.web.env.URL",
        "services.web.env.API",
        "services.web.env.G",
        "services.web.env.T",
        "services.web.env.D",
        "services.web.env.PORT",
        "services.web.env_groups",
        "services.web.build",
        "services.site.publish",
    ):
        assert found.get(path), path
    assert not any("hunter2" in text for text in written.files.values())


def test_names_that_cloud_run_cannot_take_are_told() -> None:
    """A name that begins with a digit or is too long gets another one, which `renamed` tells."""
    spec = Spec(name="shop", services={"1web": WebService(build=IMAGE), "a" * 60: WebService(build=IMAGE)})
    written = convert(spec, "cloudrun")
    assert set(written.renamed) == {"1web", "a" * 60}
    assert all(len(there) <= 49 for there in written.renamed.values())
    assert written.losses == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no resource"),
        ("a: [", "expected"),
        ("kind: Route\nmetadata: {name: a}\n", "Cloud Run"),
        ("kind: Service\n", "name"),
        ("kind: Service\nmetadata: {name: a}\nspec: {template: {spec: {containers: []}}}", "container"),
        (
            "kind: Service\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{image: a, ports: [{containerPort: 99999}]}]}}}",
            "65535",
        ),
    ],
)
def test_what_is_no_cloud_run_file_is_refused(text: str, message: str) -> None:
    """Broken files end in a located problem."""
    with pytest.raises(BlueprintInvalid) as error:
        read(text)
    assert message in str(error.value)


def test_a_missing_file_beside_the_first_is_told() -> None:
    """A first file that names others which are not there, or lie outside, is read with a warning."""
    written = CloudRunWriter().write(RICH)
    alone = {"service.yaml": written.files["service.yaml"].replace("cloudrun-job-nightly.yaml", "../../etc/passwd")}
    reading = CloudRunReader().read(MemoryTree(alone, name="shop"), "service.yaml")
    assert "web" in reading.spec.services and len(reading.warnings) == len(written.files) - 1


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
COMMON: dict[str, Any] = {
    "env": st.dictionaries(
        st.sampled_from(["A", "b.c", "PORT", "with space", "K_SERVICE"]),
        TEXT.map(lambda t: PlainValue(value=t))
        | st.builds(SecretValue, name=TEXT, required=st.booleans())
        | st.just(FromAddOn(addon="db")),
        max_size=3,
    ),
    "command": st.sampled_from(["", "npm start", "a && $(b) $$", ("a", "$(A)", "")]),
    "build": st.sampled_from([Build(), IMAGE]),
    "scale": st.builds(
        Scale,
        instances=st.integers(0, 4),
        min=st.none() | st.integers(0, 3),
        max=st.none() | st.integers(0, 9),
        scale_to_zero=st.booleans(),
        hard_concurrency=st.none() | st.integers(-1, 2000),
    ),
    "resources": st.builds(
        Resources, cpu=st.none() | st.floats(0.001, 99), memory=st.none() | st.integers(1, 2**40), gpu=st.sampled_from(["", "nvidia-l4"])
    ),
    "health": st.none()
    | st.builds(
        HealthCheck,
        kind=st.sampled_from(["http", "tcp", "command"]),
        tls=st.booleans(),
        retries=st.none() | st.integers(-1, 4),
        interval=st.none() | st.floats(0, 99).map(lambda s: timedelta(seconds=s)),
        deadline=st.none() | st.just(timedelta(seconds=33)),
    ),
    "disks": st.lists(
        st.builds(
            Disk,
            name=TEXT,
            mount_path=st.just("/a"),
            source=st.sampled_from(["", "gs://b", "nfs://h/p", "x"]),
            kind=st.sampled_from(["volume", "tmpfs", "secret", "cluster"]),
        ),
        max_size=3,
    ).map(tuple),
    "region": st.sampled_from(["", "oregon", "us-east1"]),
}
SERVICES: st.SearchStrategy[Service] = st.one_of(
    st.builds(WebService, port=st.none() | st.integers(1, 65535), protocol=st.sampled_from(["http", "h2c", "tcp"]), **COMMON),
    st.builds(PrivateService, **COMMON),
    st.builds(WorkerService, **COMMON),
    st.builds(StaticService, **COMMON),
    st.builds(FunctionService, **COMMON),
    st.builds(CronService, schedule=st.sampled_from(["* * * * *", "", "x"]), job=st.booleans(), **COMMON),
)


@MANY
@given(services=st.dictionaries(st.sampled_from(["web", "api", "9x", "w" * 63]), SERVICES, max_size=3))
def test_any_spec_is_written_readable_and_each_difference_is_listed(services: dict[str, Service]) -> None:
    """Whatever a spec says: no exception, a readable result, no unknown key, and no silent loss (`convert` would add one)."""
    spec = Spec(name="shop", services=services)
    written = CloudRunWriter().write(spec)
    if written.files:
        first = next(iter(written.files))
        for path in written.files:
            reading = CloudRunReader().read(MemoryTree(written.files, name="shop"), path)
            assert not reading.by_fate(Fate.UNKNOWN)
        again = CloudRunReader().read(MemoryTree(written.files, name="shop"), first).spec
        assert CloudRunWriter().write(again).files == written.files


def test_real_files_are_written_for_cloud_run(shared: Path) -> None:
    """Each tenth real file of every dialect is written as files that read back."""
    rows = [json.loads(line) for line in (shared / "corpus" / "index.jsonl").read_text().splitlines()]
    rows = [row for row in rows if not row["fixture"] and row["dialect"] not in ("cloudbuild", "ghworkflow")]
    done = 0
    for row in rows[::10]:
        file = shared / "corpus" / row["file"]
        one = reader(row["dialect"])
        assert one is not None
        try:
            spec = one.read(MemoryTree({file.name: decode(file.read_bytes())}, name="app"), file.name).spec
        except BlueprintInvalid:
            continue
        written = convert(spec, "cloudrun")
        if spec.services:
            back = read_back(spec, written)
            assert back is not None and set(back.services) == set(spec.services), file.name
        done += 1
    assert done > 50
