#!/usr/bin/env python3
"""The nightly job: checks the model against its data, then asks heady-manager to tidy its disk.

A cron job has no disk of its own, so the manager removes old history and writes the day's report.
"""

import json
import os
import sys

import requests

import text_model


def main():
    base = "http://" + (os.environ.get("HEADY_MANAGER_HOSTPORT") or "127.0.0.1:3300")
    key = os.environ.get("HEADY_API_KEY", "")
    accuracy = text_model.evaluate(text_model.load_rows(), text_model.load_keywords())
    try:
        answer = requests.post(f"{base}/api/admin/maintenance", headers={"X-Heady-Api-Key": key}, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        sys.exit(f"nightly: maintenance failed: {error}")
    report = {"event": "nightly", "model": text_model.load().version, "accuracy": round(accuracy, 3), **answer.json()}
    print(json.dumps(report))
    if accuracy < 0.5:
        sys.exit("nightly: the model is not better than a guess")


if __name__ == "__main__":
    main()
