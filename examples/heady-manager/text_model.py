"""A multinomial naive Bayes text classifier: word stems, additive smoothing.

Only the standard library is used, so that it can be trained by `npm install` before any
Python package is there.
"""

import hashlib
import json
import math
import os
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA_FILE = ROOT / "data" / "messages.jsonl"
KEYWORDS_FILE = ROOT / "data" / "keywords.json"
MODEL_FILE = ROOT / "model" / "model.json"

WORD = re.compile(r"[a-z0-9']+")
ENDING = re.compile(r"(ing|ed|es|s|ly|ion|er)$")
STOP = frozenset("a an the of to in on for and or is are be it this that at by with as from our we i my me you your".split())


def tokens(text):
    """Words without their common endings; each is a feature."""
    words = [w for w in WORD.findall(text.lower()) if w not in STOP]
    return [ENDING.sub("", w) if len(w) > 4 else w for w in words]


def load_rows(path=DATA_FILE):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def load_keywords(path=KEYWORDS_FILE):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def train(rows, keywords):
    """Counts per label; a keyword counts like one message that holds it. `version` names the data the model was made of."""
    counts = defaultdict(Counter)
    documents = Counter()
    for row in rows:
        documents[row["label"]] += 1
        counts[row["label"]].update(set(tokens(row["text"])))
    for label, words in keywords.items():
        counts[label].update(set(tokens(words)))
    digest = hashlib.sha256(json.dumps([rows, keywords], sort_keys=True).encode()).hexdigest()
    return {
        "version": digest[:12],
        "documents": dict(documents),
        "counts": {label: dict(sorted(c.items())) for label, c in sorted(counts.items())},
    }


def save(model, path=MODEL_FILE):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".model-")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(model, out)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def load(path=MODEL_FILE):
    """The trained model; trained on the spot when the build step was skipped."""
    try:
        return Classifier(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Classifier(train(load_rows(), load_keywords()))


class Classifier:
    def __init__(self, model):
        self.version = model["version"]
        self.counts = model["counts"]
        self.labels = sorted(self.counts)
        total = sum(model["documents"].values())
        self.prior = {label: math.log(model["documents"][label] / total) for label in self.labels}
        self.sums = {label: sum(self.counts[label].values()) for label in self.labels}
        self.vocabulary = len({t for c in self.counts.values() for t in c})

    def _weight(self, label, token):
        return math.log((self.counts[label].get(token, 0) + 0.5) / (self.sums[label] + 0.5 * self.vocabulary))

    def predict(self, text):
        known = [t for t in tokens(text) if any(t in self.counts[label] for label in self.labels)]
        logs = {label: self.prior[label] + sum(self._weight(label, t) for t in known) for label in self.labels}
        top = max(logs.values())
        total = sum(math.exp(v - top) for v in logs.values())
        scores = {label: math.exp(v - top) / total for label, v in logs.items()}
        best = max(scores, key=scores.get)
        others = [label for label in self.labels if label != best]
        gain = {t: self._weight(best, t) - max(self._weight(o, t) for o in others) for t in known}
        because = [t for t, g in sorted(gain.items(), key=lambda kv: -kv[1]) if g > 0][:5]
        ordered = dict(sorted(((k, round(v, 4)) for k, v in scores.items()), key=lambda kv: -kv[1]))
        return {"label": best, "confidence": round(scores[best], 4), "scores": ordered, "because": because}


def evaluate(rows, keywords, folds=7):
    """Share of right answers, each row judged by a model that has not seen it."""
    right = 0
    for fold in range(folds):
        model = Classifier(train([r for i, r in enumerate(rows) if i % folds != fold], keywords))
        right += sum(model.predict(r["text"])["label"] == r["label"] for i, r in enumerate(rows) if i % folds == fold)
    return right / len(rows)
