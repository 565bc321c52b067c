"""The parser of ``detbench device``."""

from __future__ import annotations

from harness.cli_parts import Commands, add


def device(commands: Commands) -> None:
    """Add the command."""
    parser = add(
        commands, "device", "device", "Serve this machine to another one that measures on it."
    )
    parser.add_argument("what", choices=["serve", "track"], help="a board, or a tracker of boards")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets everybody on the network run code here",
    )
    parser.add_argument("--port", type=int, help="default: 9090, of a tracker 9190")
    parser.add_argument("--tracker", metavar="HOST:PORT", help="offer this board there")
    parser.add_argument("--key", help="kind of board, such as rpi4; needs --tracker")
    parser.add_argument(
        "--hours", type=float, default=12.0, help="end after so long (default: %(default)s)"
    )
