#!/usr/bin/env python3
"""Text inference: which kind of message is this?

With HF_TOKEN set the Hugging Face inference API answers (zero-shot, same labels); otherwise
the model trained at build time does. One process handles one request at a time.
"""

import os
import time

import worker_protocol  # first: it sets the signal handlers
import text_model
from worker_protocol import BadInput, UpstreamError

MAX_TEXTS = 64
MAX_CHARS = 20_000

HF_TOKEN = os.environ.get("HF_TOKEN", "").strip()
HF_MODEL = os.environ.get("HF_MODEL", "facebook/bart-large-mnli")
HF_API_URL = os.environ.get("HF_API_URL", "https://router.huggingface.co/hf-inference/models")
HF_TIMEOUT = float(os.environ.get("HF_TIMEOUT_SECONDS", "20"))

MODEL = text_model.load()


def infer_local(text):
    return {"engine": "local", "model": MODEL.version, **MODEL.predict(text)}


def infer_hugging_face(text):
    import requests

    try:
        answer = requests.post(
            f"{HF_API_URL.rstrip('/')}/{HF_MODEL}",
            headers={"Authorization": f"Bearer {HF_TOKEN}"},
            json={"inputs": text, "parameters": {"candidate_labels": MODEL.labels}},
            timeout=HF_TIMEOUT,
        )
        answer.raise_for_status()
        scores = as_scores(answer.json())
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise UpstreamError(f"Hugging Face answered {status}" if status else f"Hugging Face: {type(error).__name__}") from error
    if not scores:
        raise UpstreamError("Hugging Face answered without labels")
    best = max(scores, key=scores.get)
    return {"engine": "huggingface", "model": HF_MODEL, "label": best, "confidence": round(scores[best], 4), "scores": scores}


def as_scores(body):
    """Both shapes the API uses: {"labels": [...], "scores": [...]} and [{"label": ..., "score": ...}, ...]."""
    if isinstance(body, dict):
        return {label: round(float(score), 4) for label, score in zip(body["labels"], body["scores"])}
    return {row["label"]: round(float(row["score"]), 4) for row in body}


def texts_of(payload):
    texts = payload["texts"] if "texts" in payload else [payload.get("text")]
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
        raise BadInput(f"texts must be a list of 1 to {MAX_TEXTS} strings")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise BadInput("text must be a string that is not empty")
        if len(text) > MAX_CHARS:
            raise BadInput(f"text must have at most {MAX_CHARS} characters")
    return texts


def handle(payload):
    began = time.perf_counter()
    infer = infer_hugging_face if HF_TOKEN else infer_local
    results = [infer(text) for text in texts_of(payload)]
    return {"results": results, "ms": round((time.perf_counter() - began) * 1000, 2)}


if __name__ == "__main__":
    worker_protocol.serve(handle, {"engine": "huggingface" if HF_TOKEN else "local", "model": MODEL.version, "labels": MODEL.labels})
