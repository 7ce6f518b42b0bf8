#!/usr/bin/env python3
"""Trains the text model from data/. Run by `npm install` (postinstall)."""

import sys
import time

import text_model


def main():
    began = time.monotonic()
    rows = text_model.load_rows()
    keywords = text_model.load_keywords()
    accuracy = text_model.evaluate(rows, keywords)
    model = text_model.train(rows, keywords)
    model["accuracy"] = round(accuracy, 3)
    text_model.save(model)
    print(
        f"trained {model['version']} on {len(rows)} messages, {len(model['documents'])} labels, "
        f"cross-validated accuracy {accuracy:.2f}, {time.monotonic() - began:.2f} s"
    )
    if accuracy < 0.5:
        sys.exit("the model is not better than a guess: look at data/")


if __name__ == "__main__":
    main()
