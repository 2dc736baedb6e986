"""``selfflow-mm serve-policy``: a policy for robots and simulators that ask over the network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .policy_options import acting_options, add_policy_options, policy_settings

if TYPE_CHECKING:
    from ..interfaces import PolicyAbout
    from ..serving import ServerOptions

HELP = "serve a policy over the network: openpi's protocol, or vla-eval's"
EXAMPLES = """examples:
  selfflow-mm serve-policy runs/robot --port 8000
  selfflow-mm serve-policy runs/robot --executed 4 --ensemble adaptive
  selfflow-mm serve-policy random --statistics statistics.json --horizon 8
  selfflow-mm serve-policy replay --data tabletop --episode 3 --port 0
  selfflow-mm serve-policy runs/robot --host 0.0.0.0 --api-key KEY
  selfflow-mm serve-policy runs/robot --protocol vla-eval --rotation axis_angle

POLICY is random, zero, mean, replay, or the folder of a fine-tuned model. Clients of openpi connect as they are:
WebsocketClientPolicy(host, port).infer({"image": uint8 (H, W, 3), "prompt": text, "state": numbers}).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", help="random, zero, mean, replay, or the folder of a model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--protocol", choices=("openpi", "vla-eval"), default="openpi", help="(default: openpi)")
    parser.add_argument("--api-key", metavar="KEY", help="that clients must send (default: $SELFFLOW_API_KEY, or none)")
    parser.add_argument("--default-prompt", metavar="TEXT", help="what the robot is told where a client says nothing")
    add_policy_options(parser)
    parser.add_argument("--episode", type=int, metavar="N", help="of replay: that one (default: by what clients say)")
    batches = parser.add_argument_group("batches")
    batches.add_argument("--max-batch", type=int, default=16, metavar="N", help="requests at a time (default: 16)")
    batches.add_argument(
        "--max-wait-ms", type=float, default=0.0, metavar="MS", help="to wait for a batch to fill (default: 0)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-message-mb", type=float, default=32.0, metavar="MB", help="(default: 32)")
    limits.add_argument("--max-connections", type=int, default=64, metavar="N", help="(default: 64)")
    limits.add_argument(
        "--max-rate", type=float, default=0.0, metavar="HZ",
        help="messages per second and connection; more wait for their turn (default: 0, no limit)",
    )  # fmt: skip
    limits.add_argument(
        "--idle-timeout",
        type=float,
        default=3600.0,
        metavar="S",
        help="hang up on who is silent so long (default: 3600)",
    )
    harness = parser.add_argument_group("vla-eval")
    harness.add_argument("--camera", metavar="NAME", help="which of several pictures is looked at")
    harness.add_argument(
        "--rotation", choices=("euler_xyz", "axis_angle"), default="euler_xyz",
        help="of the answers; its SIMPLER benchmark takes them for axis_angle (default: euler_xyz)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    import logging
    import os
    import sys

    from selfflow_mm.errors import UserError

    from ..policies import load_policy
    from ..serving import PolicyServer, ServerOptions

    if args.protocol != "vla-eval" and (args.camera is not None or args.rotation != "euler_xyz"):
        raise UserError("--camera and --rotation go with --protocol vla-eval")
    if not 0 < args.max_message_mb <= 2048:
        raise UserError(f"--max-message-mb is more than 0 and at most 2048, got {args.max_message_mb:g}")
    options = ServerOptions(
        host=args.host,
        port=args.port,
        protocol=args.protocol,
        api_key=os.environ.get("SELFFLOW_API_KEY") or None if args.api_key is None else args.api_key,
        max_batch=args.max_batch,
        max_wait=args.max_wait_ms / 1000,
        max_message=int(args.max_message_mb * 2**20),
        max_connections=args.max_connections,
        max_rate=args.max_rate,
        idle=args.idle_timeout,
        default_prompt=args.default_prompt,
        camera=args.camera,
        rotation=args.rotation,
    )
    acting = acting_options(args)
    replayed = {} if args.episode is None else {"episode": args.episode}
    policy = load_policy(args.policy, **policy_settings(args), **replayed)
    server = PolicyServer(policy, options, acting)
    logging.basicConfig(format="selfflow-mm serve-policy: %(message)s", level=logging.WARNING)
    if not _is_loopback(options.host) and options.api_key is None:
        print(
            f"selfflow-mm serve-policy: warning: whoever reaches {options.host} may use this policy; "
            "ask for a key with --api-key",
            file=sys.stderr,
        )
    server.run(lambda address: print(_ready(address, server.executed, policy.about, options), flush=True))
    print("stopped", flush=True)
    return 0


def _ready(address: str, executed: int, about: PolicyAbout, options: ServerOptions) -> str:
    if not about.state_names:
        state = "no state"
    else:
        state = f"state {'needed' if about.needs_state else 'optional'} ({', '.join(about.state_names)})"
    key = ", API key" if options.api_key is not None else ""
    return (
        f"{address}: serving {about.name} by {options.protocol}'s protocol{key}; chunks of {about.horizon} actions, "
        f"{executed} carried out, {about.control_rate:g} per second; {state}"
    )


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
