"""The parsers of commands that look for what can be left out of a network."""

from __future__ import annotations

from pathlib import Path

from harness.cli_parts import Commands, add, add_json, add_weights


def add_lab_commands(commands: Commands) -> None:
    """Which layers can be pruned."""
    _sensitivity(commands)


def _sensitivity(commands: Commands) -> None:
    parser = add(
        commands,
        "sensitivity",
        "sensitivity",
        "Prune one layer after another and say what each costs. A stopped scan goes on.",
    )
    parser.add_argument("model", help="name or name:key=value, such as mb2_ssd_lite")
    add_weights(parser)
    parser.add_argument(
        "--data",
        default="shapes:calibration",
        help="scored images, better not those of the final score; default: %(default)s",
    )
    parser.add_argument("--images", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--sparsities",
        default="0.3,0.5,0.7,0.8,0.9",
        metavar="A,B",
        help="of each layer, default: %(default)s",
    )
    parser.add_argument(
        "--pattern", default="1x1", help="what is pruned together: 1x1, 4x1, 16x1; default: 1x1"
    )
    parser.add_argument(
        "--target-drop",
        type=float,
        metavar="AP",
        help="choose a sparsity for each layer so that the network loses at most so many points",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for what was found"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_json(parser)
