"""Run by a Python that has openpi-client, not by ours: it asks the server at ``argv[1]``, with the key ``argv[2]``.

Prints what came back as JSON; the test works out what had to.
"""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.image_tools import resize_with_pad
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def picture(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def main(url, key):
    host, port = url.rsplit(":", 1)
    client = WebsocketClientPolicy(host, int(port), api_key=key)
    found = {"metadata": client.get_server_metadata(), "answers": []}
    observations = [
        {"image": picture(6, 8, 0), "prompt": "pick"},
        {"observation/image": picture(1080, 1920, 1), "prompt": "pick up", "observation/state": np.array([1.5, 2.5])},
        {
            "observation/image": resize_with_pad(picture(480, 640, 2), 224, 224),
            "prompt": "",
            "state": np.float32([1, 2]),
        },
        {"image": picture(3, 2, 3)[::-1, ::-1], "prompt": str(np.str_("ü")), "state": [1, 2], "extra": {"x": [None]}},
        {"image": np.stack([picture(6, 8, 4)] * 2), "prompt": ["a", "bb"], "state": np.eye(2, dtype=np.float16)},
    ]
    for observation in observations:
        answer = client.infer(observation)
        assert set(answer) == {"actions", "server_timing"}, answer
        actions = answer["actions"]
        picture_mean = np.asarray(observation.get("image", observation.get("observation/image"))).mean()
        found["answers"].append(
            {
                "shape": actions.shape, "dtype": actions.dtype.str, "first": actions.reshape(-1, 7)[0].tolist(),
                "mean": float(picture_mean), "timing": sorted(answer["server_timing"]),
            }
        )  # fmt: skip
    player = PolicyAgent(ActionChunkBroker(client, action_horizon=3))
    player.reset()
    asked = [player.get_action(observations[0])["actions"].tolist() for _ in range(7)]
    found["broker"] = asked
    try:
        client.infer({"image": picture(6, 8, 0).astype(np.float32), "prompt": "x"})
    except RuntimeError as error:
        found["error"] = str(error)
    try:
        client.infer(observations[0])
    except Exception as error:
        found["after"] = type(error).__name__
    try:
        WebsocketClientPolicy(host, int(port), api_key="wrong")
    except Exception as error:
        found["refused"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


main(*sys.argv[1:])
