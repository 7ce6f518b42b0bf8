"""Manifests as people write them: services, add-ons, routes, and every key accounted for."""

from __future__ import annotations

import pytest

from homeport.blueprints.kubernetes import KubernetesReader, KubernetesWriter
from homeport.blueprints.manifests import parse_manifests
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import Postgres
from homeport.model.env import FromGroup, PlainValue, SecretValue, Template
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves
from homeport.model.service import CronService, PrivateService, WebService, WorkerService
from homeport.model.spec import Spec

BY_HAND = """\
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {LEVEL: info, PORTS: "8"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
type: Opaque
data: {API_KEY: aHVudGVyMg==}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  revisionHistoryLimit: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      initContainers: [{name: wait, image: busybox}]
      containers:
        - name: web
          image: acme/web:1
          command: [npm, start]
          ports: [{containerPort: 3000, name: http}]
          envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}}]
          env:
            - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: API_KEY}}}
            - {name: LEVEL_TOO, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}
            - {name: URL, value: "http://$(TOKEN)@x"}
          livenessProbe: {httpGet: {path: /live, port: http}, periodSeconds: 5}
          readinessProbe: {httpGet: {path: /ready, port: 3000}, timeoutSeconds: 2}
          resources: {limits: {cpu: 500m, memory: 256Mi, ephemeral-storage: 1Gi}, requests: {cpu: "0.1"}}
          mystery: true
---
apiVersion: v1
kind: Service
metadata: {name: web-svc}
spec: {type: ClusterIP, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: all, annotations: {cert-manager.io/cluster-issuer: le}}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example.com], secretName: t}]
  rules:
    - host: shop.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: web-svc, port: {number: 80}}}}
          - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]
---
apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: api}
    spec:
      template:
        metadata: {labels: {app: api}}
        spec: {containers: [{name: api, image: acme/api, args: [serve], ports: [{containerPort: 80}]}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: api}
    spec: {selector: {app: api}, ports: [{port: 80}]}
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: jobs}
    spec: {template: {spec: {containers: [{name: jobs, image: acme/web:1, command: [sh, -c, "work | log"]}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: db
          image: pgvector/pgvector:pg17
          args: [-c, max_connections=50]
          env: [{name: POSTGRES_DB, value: shop}, {name: POSTGRES_USER, value: shop}]
          volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "17 3 * * *"
  suspend: false
  jobTemplate:
    spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: n, image: acme/web:1, args: [clean]}]}}}
"""


def read(text: str) -> Reading:
    return KubernetesReader().read(MemoryTree({"k8s.yaml": text}, name="shop"), "k8s.yaml")


def test_manifests_written_by_hand_become_a_project() -> None:
    """Workloads become services of the kind that the objects around them show, known images become add-ons."""
    spec = read(BY_HAND).spec
    web, api, jobs, nightly = (spec.services[name] for name in ("web", "api", "jobs", "nightly"))
    db = spec.addons["db"]
    assert isinstance(web, WebService) and web.port == 3000 and web.command == "npm start" and web.aliases == ("web-svc",)
    assert [d.host for d in web.domains] == ["shop.example.com"] and web.domains[0].tls
    assert web.scale.min == 2 and web.scale.max == 5 and web.scale.target_cpu == 60 and web.scale.instances == 2
    assert web.env_groups == ("settings", "keys")
    assert spec.env_groups["keys"].env == {"API_KEY": SecretValue()}
    assert web.env["TOKEN"] == SecretValue(name="API_KEY") and web.env["LEVEL_TOO"] == FromGroup(group="settings", key="LEVEL")
    assert web.env["URL"] == Template(parts=(PlainValue(value="http://"), SecretValue(name="API_KEY"), PlainValue(value="@x")))
    assert web.health is not None and web.health.path == "/ready" and web.checks[0].role == "live" and web.checks[0].port == ""
    assert web.resources.cpu == 0.5 and web.resources.memory == 256 << 20 and web.resources.cpu_reserved == 0.1
    assert isinstance(api, WebService) and api.port == 80
    assert isinstance(jobs, WorkerService) and jobs.command == "work | log"
    assert isinstance(nightly, CronService) and nightly.concurrency == "allow" and nightly.restart.policy == "on-failure"
    assert isinstance(db, Postgres) and db.version == "17" and db.disk == 5 << 30 and db.extensions_wanted == ("vector",)
    assert db.parameters == {"max_connections": "50"} and db.database == "shop"
    assert [r.match.path for r in spec.routes] == ["/api"]


def test_every_leaf_of_a_manifest_is_accounted_for() -> None:
    """Each leaf has one fate; what no reader knows is unknown, what has no meaning outside of a cluster is ignored with a reason."""
    reading = read(BY_HAND)
    assert len(reading.keys) == len(leaves(parse_manifests("k8s.yaml", BY_HAND).data))
    unknown = [key.path for key in reading.by_fate(Fate.UNKNOWN)]
    assert [path.rpartition(".")[2] for path in unknown] == ["mystery"]
    assert all(key.reason for key in reading.keys if key.fate in (Fate.IGNORED, Fate.APPROXIMATED))


def test_values_of_a_secret_stay_out_of_the_spec() -> None:
    """A Secret's data is named, never taken over."""
    reading = read(BY_HAND)
    assert "aHVudGVyMg" not in reading.spec.model_dump_json()
    assert any("keys" in warning for warning in reading.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no object"),
        ("---\n---\n", "no object"),
        ("[1]", "mapping"),
        ("kind: Deployment\n", "name"),
        ("kind: Deployment\nmetadata: {name: a}\nspec: 5\n", "mapping"),
        ("kind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: []}}}", "container"),
        ("kind: Deployment\nmetadata: {name: a}\nspec: {replicas: -1, template: {spec: {containers: [{image: a}]}}}", "whole number"),
        ("apiVersion: v1\n---\nkind: [", "expected"),
        ("a: &a [x]\nb: *a\n---\n" + "[" * 2000, "deep"),
        ("kind: A\nmetadata: {name: a}\n---\n" * 9000, "more than"),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_place(text: str, message: str) -> None:
    """Broken and hostile streams end in a located problem."""
    with pytest.raises(BlueprintInvalid) as error:
        read(text)
    assert message in str(error.value)


def test_leftovers_that_do_not_fit_any_more_are_left_out_with_a_warning() -> None:
    """Who edits manifests by hand is not stopped by what Homeport had kept."""
    kept = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: k, annotations: {homeport.dev/spec: patch}}\n"
        'data: {spec.json: \'{"services": {"gone": {"port": "x"}}}\'}\n'
    )
    reading = read(BY_HAND + "---\n" + kept)
    assert reading.spec == read(BY_HAND).spec and any("left out" in warning for warning in reading.warnings)


def test_knative_and_compose_files_are_none_of_its_own() -> None:
    """Only streams with a workload of Kubernetes' own are recognised."""
    reader = KubernetesReader()
    assert reader.recognises("a/k8s.yaml", BY_HAND)
    assert not reader.recognises("service.yaml", "apiVersion: serving.knative.dev/v1\nkind: Service\n")
    assert not reader.recognises("docker-compose.yml", "services: {}\n")
    assert not reader.recognises("Procfile", BY_HAND)
    assert isinstance(read(BY_HAND.replace("kind: Ingress", "kind: Gateway")).spec.services["web"], PrivateService)


def test_only_manifests_of_homeports_own_are_found_by_themselves() -> None:
    """A repository's own manifests never decide in place of its source; one that Homeport wrote does, with all it kept."""
    spec = Spec(name="shop", services={"web": WebService(command="node a.js")})
    written = KubernetesWriter().write(spec).files
    reader = KubernetesReader()
    assert reader.candidates(MemoryTree({"k8s.yaml": BY_HAND})) == []
    assert reader.candidates(MemoryTree(written)) == ["kubernetes.yaml"]
