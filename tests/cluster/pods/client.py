"""A client in a pod: asks Triton's Service at a fixed rate and prints one JSON line for each request.

    python3 client.py HOST:PORT MODEL RATE SECONDS BATCH

Latency counts from the instant a request was due, so that a stall is not hidden by requests that were never sent.
"""

import json
import sys
import time

import numpy as np
import tritonclient.grpc as triton

TIMEOUT_SECONDS = 20.0


def main() -> None:
    address, model, rate, seconds, batch = sys.argv[1:]
    client = triton.InferenceServerClient(address)
    metadata = client.get_model_metadata(model, client_timeout=TIMEOUT_SECONDS)
    (tensor,), output = metadata.inputs, metadata.outputs[0].name
    shape = [int(batch), *tensor.shape[1:]]
    given = triton.InferInput(tensor.name, shape, tensor.datatype)
    given.set_data_from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))
    # The wall clock is looked at once: tests step it.
    began, steady = time.time(), time.monotonic()

    def now() -> float:
        return began + time.monotonic() - steady

    for number in range(int(float(rate) * float(seconds))):
        due = began + number / float(rate)
        time.sleep(max(0.0, due - now()))
        line = {"due": round(due, 4), "version": None, "error": None}
        try:
            answer = client.infer(model, [given], client_timeout=TIMEOUT_SECONDS)
            line["version"] = int(answer.get_response().model_version)
            values = answer.as_numpy(output)
            if not np.isfinite(values).all():
                line["error"] = "an answer that is not finite"
            line["answer"] = float(np.abs(values).mean())
        except Exception as error:
            line["error"] = f"{type(error).__name__}: {error}"[:200]
        line["milliseconds"] = round(1e3 * (now() - due), 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
