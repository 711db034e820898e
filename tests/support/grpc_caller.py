"""A program that calls ``/test.Backend/Name`` on the target of its first argument.

It calls once for every line of its input and prints ``{"name": ...}`` or ``{"code": ..., "details": ...}``. With the
argument ``--steadily`` it calls all the time, and prints for every line how often it got which answer so far.

With a target of ``xds:///...`` gRPC's own xDS client finds the backend; its bootstrap comes from GRPC_XDS_BOOTSTRAP,
which must be set before gRPC is imported: hence a process of its own.
"""

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable

import grpc

Call = Callable[[], dict[str, str]]


def caller(channel: grpc.Channel) -> Call:
    name: Callable[..., bytes] = channel.unary_unary("/test.Backend/Name")  # type: ignore[call-arg]  # no serializers

    def call() -> dict[str, str]:
        try:
            return {"name": name(b"", timeout=5).decode()}
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": str(error.details())}

    return call


def call_steadily(call: Call, answers: Counter[str]) -> None:
    while True:
        answer = call()
        answers[answer.get("name") or f"{answer['code']}: {answer['details']}"] += 1


def main(target: str, *options: str) -> None:
    with grpc.insecure_channel(target) as channel:
        call, answers = caller(channel), Counter[str]()
        steadily = "--steadily" in options
        if steadily:
            threading.Thread(target=call_steadily, args=(call, answers), daemon=True).start()
        for _ in sys.stdin:
            print(json.dumps(answers if steadily else call()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
