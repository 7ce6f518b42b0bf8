"""One JSON object per line in, one per line out: how heady-manager.js talks to its Python workers."""

import json
import signal
import sys

for _signal in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_signal, signal.SIG_IGN)

# Replies go to the descriptor that was stdout at the start; a stray print() must not corrupt the stream.
_replies = sys.stdout
sys.stdout = sys.stderr


class BadInput(Exception):
    """The caller sent something that cannot be processed; the text is shown to them."""


class UpstreamError(Exception):
    """A remote service failed."""


def serve(handler, describe):
    """Answers requests from stdin until it closes (the parent went away or drains us).

    Signals to the process group are for the parent: it finishes what is in hand, then closes our stdin.
    """
    _send({"ready": True, **describe})
    for line in sys.stdin:
        try:
            request = json.loads(line)
        except ValueError:
            continue
        reply = {"id": request.get("id")}
        try:
            payload = request.get("payload")
            if not isinstance(payload, dict):
                raise BadInput("the body must be a JSON object")
            reply["result"] = handler(payload)
        except BadInput as error:
            reply["error"] = {"code": "bad_input", "message": str(error)}
        except UpstreamError as error:
            reply["error"] = {"code": "upstream", "message": str(error)}
        except Exception as error:  # a bug: say so, keep serving
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            reply["error"] = {"code": "internal", "message": type(error).__name__}
        _send(reply)


def _send(message):
    _replies.write(json.dumps(message, ensure_ascii=False) + "\n")
    _replies.flush()
