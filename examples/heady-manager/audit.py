#!/usr/bin/env python3
"""Audits a document for secrets and policy findings.

As a worker of heady-manager.js it answers JSON lines; by hand: python3 audit.py FILE...
The text of a secret never leaves this process: findings carry a mask and a salted fingerprint,
equal for equal secrets, so that a known leak can be recognised.
"""

import hashlib
import hmac
import json
import math
import os
import re
import sys
from collections import Counter
from pathlib import Path

import yaml

MAX_CHARS = 200_000
MAX_FINDINGS = 500
SEVERITIES = ("low", "medium", "high", "critical")
SALT = os.environ.get("HEADY_AUDIT_SALT", "").encode()


def entropy(text):
    """Shannon entropy in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def mask(secret):
    shown = 4 if len(secret) >= 16 else 1
    return f"{secret[:shown]}…({len(secret)} characters)"


def fingerprint(secret):
    return hmac.new(SALT, secret.encode(), hashlib.sha256).hexdigest()[:16]


def luhn(number):
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


class Auditor:
    def __init__(self, policy):
        self.rules = [("secret", rule, re.compile(rule["pattern"])) for rule in policy["secrets"]]
        self.rules += [("policy", rule, re.compile(rule["pattern"])) for rule in policy["policies"]]
        limits = policy["entropy"]
        self.entropy = limits
        self.word = re.compile(r"[A-Za-z0-9+/_=-]{%d,%d}" % (limits["min_length"], limits["max_length"]))
        self.ignore = policy["ignore"]

    def audit(self, text):
        findings = []
        for number, line in enumerate(text.splitlines(), 1):
            findings += self.audit_line(number, line)
            if len(findings) >= MAX_FINDINGS:
                break
        counts = Counter(f["severity"] for f in findings)
        return {
            "ok": not any(f["kind"] == "secret" or f["severity"] in ("high", "critical") for f in findings),
            "lines": len(text.splitlines()),
            "findings": findings[:MAX_FINDINGS],
            "truncated": len(findings) >= MAX_FINDINGS,
            "summary": {severity: counts.get(severity, 0) for severity in SEVERITIES},
        }

    def audit_line(self, number, line):
        taken = []
        for kind, rule, pattern in self.rules:
            for match in pattern.finditer(line):
                start, end = match.span(1 if pattern.groups else 0)
                value = line[start:end]
                if any(start < e and s < end for s, e in taken) or any(word in value for word in self.ignore):
                    continue
                if rule.get("check") == "luhn" and not luhn(value):
                    continue
                if entropy(value) < rule.get("min_entropy", 0):
                    continue
                taken.append((start, end))
                yield self.finding(number, start, kind, rule["id"], rule["severity"], rule["message"], value)
        for match in self.word.finditer(line):
            start, end = match.span()
            if entropy(match[0]) >= self.entropy["bits_per_char"] and not any(start < e and s < end for s, e in taken):
                yield self.finding(number, start, "secret", "high-entropy", self.entropy["severity"], "Random-looking text", match[0])

    @staticmethod
    def finding(number, start, kind, rule, severity, message, value):
        return {
            "line": number,
            "column": start + 1,
            "kind": kind,
            "rule": rule,
            "severity": severity,
            "message": message,
            "match": mask(value),
            "fingerprint": fingerprint(value),
        }


def load_auditor():
    policy = Path(__file__).resolve().parent / "audit-policy.yaml"
    return Auditor(yaml.safe_load(policy.read_text(encoding="utf-8")))


def main(paths):
    auditor = load_auditor()
    reports = {path: auditor.audit(Path(path).read_text(encoding="utf-8", errors="replace")) for path in paths}
    print(json.dumps(reports, indent=2, ensure_ascii=False))
    return 0 if all(report["ok"] for report in reports.values()) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1:]))

    import worker_protocol

    AUDITOR = load_auditor()

    def handle(payload):
        document = payload.get("document")
        if not isinstance(document, str) or not document.strip():
            raise worker_protocol.BadInput("document must be a string that is not empty")
        if len(document) > MAX_CHARS:
            raise worker_protocol.BadInput(f"document must have at most {MAX_CHARS} characters")
        return {"name": str(payload.get("name") or "document")[:200], **AUDITOR.audit(document)}

    worker_protocol.serve(handle, {"rules": len(AUDITOR.rules)})
