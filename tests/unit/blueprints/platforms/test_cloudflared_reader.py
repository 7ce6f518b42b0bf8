"""What the cloudflared reader makes of ingress rules."""

from __future__ import annotations

from textwrap import dedent

import pytest

from homeport.blueprints.cloudflared import CloudflaredReader
from homeport.blueprints.source import MemoryTree
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.route import Respond, ToUrl


def read(text: str) -> Reading:
    return CloudflaredReader().read(MemoryTree({"config.yml": dedent(text)}, "home"), "config.yml")


def test_rules_become_routes() -> None:
    """Hosts, paths, origins and the settings of origins become routes; a rule's setting wins over the general one."""
    reading = read(
        """
        tunnel: 6ff42ae2
        credentials-file: /root/6ff42ae2.json
        originRequest:
          connectTimeout: 10s
          noTLSVerify: true
        ingress:
          - hostname: "*.example.com"
            path: \\.(jpg|png)$
            service: https://localhost:8000
            originRequest: {connectTimeout: 1m30s, httpHostHeader: inner, tlsTimeout: 3s}
          - hostname: hello.example.com
            service: hello_world
          - hostname: app.example.com
            service: http://${HOST}:3000
          - service: http_status:404
        """
    )
    first, hello, templated, last = reading.spec.routes
    assert isinstance(first.action, ToUrl)
    assert (first.match.host, first.match.syntax) == ("*.example.com", "regex")
    assert first.action.connect_timeout is not None
    assert first.action.connect_timeout.total_seconds() == 90
    assert (first.action.host_header, first.action.tls_verify) == ("inner", False)
    assert first.action.options == {"tlsTimeout": "3s"}
    assert isinstance(hello.action, Respond)
    assert isinstance(templated.action, ToUrl)
    assert isinstance(last.action, Respond)
    assert last.action.status == 404
    assert reading.spec.tunnels[0].id == "6ff42ae2"


def test_the_last_rule_must_match_everything() -> None:
    """A file without a catch-all is refused at the last rule, as cloudflared does."""
    with pytest.raises(BlueprintInvalid) as caught:
        read("ingress:\n  - hostname: a.com\n    service: http://x:1\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (2, "ingress[0].hostname")
    assert "http_status:404" in problem.fix


def test_faults_are_found_in_one_go() -> None:
    """Every wrong rule is located: ports in hosts, wildcards, addresses, expressions, early catch-alls, timeouts."""
    with pytest.raises(BlueprintInvalid) as caught:
        read(
            """\
            ingress:
              - hostname: a.com:80
                service: http://x:1
              - hostname: a.*.com
                service: localhost
              - hostname: b.com
                path: "("
                service: http://x:1
              - service: http://x:1/path
              - hostname: c.com
                service: http_status:999
                originRequest: {connectTimeout: soon}
              - service: http_status:404
            """
        )
    assert [problem.line for problem in caught.value.problems] == [2, 4, 5, 7, 9, 9, 12, 11]


def test_streams_are_said_to_stay_with_the_tunnel() -> None:
    """ssh, tcp and rdp are no HTTP: the rule is ignored, the user is warned."""
    reading = read("ingress:\n  - hostname: git.a.com\n    service: ssh://localhost:22\n  - service: http_status:404\n")
    assert [note.path for note in reading.by_fate(Fate.IGNORED)] == ["ingress[0].service"]
    assert len(reading.spec.routes) == 1
    assert "git.a.com" in reading.warnings[0]


def test_credentials_stay_out_of_the_spec() -> None:
    """A token in the file is not kept."""
    reading = read("tunnel: a\ntoken: s3cr3t\ningress:\n  - service: http://x:1\n")
    assert "s3cr3t" not in reading.spec.model_dump_json()


def test_one_origin_without_rules() -> None:
    """The form before ingress rules, `url` and `hostname`, is one route."""
    reading = read("tunnel: a\ncredentials-file: b\nurl: localhost:8000\nno-tls-verify: true\n")
    (route,) = reading.spec.routes
    assert isinstance(route.action, ToUrl)
    assert route.action.url == "http://localhost:8000"
    assert not route.action.tls_verify


def test_recognised_by_its_keys() -> None:
    """config.yml is a common name: the keys decide."""
    recognises = CloudflaredReader().recognises
    assert recognises("config.yml", "ingress:\n- service: http_status:404\n")
    assert recognises("o__r__ssh.yml", "tunnel: x\ncredentials-file: y\n")
    assert not recognises("config.yml", "title: x\n")
    assert not recognises("values.json", "ingress:\n")
