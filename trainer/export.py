"""`wit export`: a run's weights, or anybody's, as a folder that open_clip and Hugging Face load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trainer.convert import HUGGING_FACE_CONFIG, export
from trainer.evaluate.weights import add_options, load_model, weights_of
from wit import storage
from wit.console import Arguments
from wit.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `wit export ...`; 0."""
    options = _parser().parse_args(argv)
    if storage.list_names(options.out):
        raise UserError(f"{options.out}: not empty; choose another --out")
    path = weights_of(options.weights, options.step)
    model, facts = load_model(path, options.model, options.gelu)
    export(options.out, model.state_dict(), model.config)
    print(f"{options.out}: {facts['model']}, {facts['gelu']} GELU, from {path}")
    print(f'  open_clip.create_model_from_pretrained("local-dir:{options.out}")')
    if storage.exists(storage.join(options.out, HUGGING_FACE_CONFIG)):
        print(f'  transformers.CLIPModel.from_pretrained("{options.out}")')
    else:
        print("  (Hugging Face's CLIPModel has no ResNets)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="wit export",
        description="Writes a folder with the weights as open_clip and, for vision transformers, "
        "Hugging Face load them without a network.",
        allow_abbrev=False,
    )
    add_options(parser)
    parser.add_argument("--out", required=True, help="a new folder")
    return parser
