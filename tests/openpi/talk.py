"""Runs in the environment of `openpi-client`, against a server of this library.

python talk.py PORT API_KEY
"""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def observe(value):
    image = np.zeros((4, 4, 3), np.uint8)
    return {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": np.array([value, 0.0]),
        "prompt": "open it",
    }


policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key=sys.argv[2])
answer = policy.infer(observe(3.0))
broker = ActionChunkBroker(policy, 2)
played = [float(broker.infer(observe(10.0 * t))["actions"][0]) for t in range(4)]
try:
    policy.infer({"observation/state": np.zeros(2)})
    error = ""
except RuntimeError as refused:
    error = str(refused)
print(
    json.dumps(
        {
            "numpy": np.__version__,
            "dataset": policy.get_server_metadata()["schema"]["dataset"],
            "actions": answer["actions"].tolist(),
            "type": str(answer["actions"].dtype),
            "timing": sorted(answer["server_timing"]),
            "played": played,
            "error": error,
        }
    )
)
