"""`wit COMMAND`: a table of commands, each loaded only when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import wit

COMMANDS = {
    "crawl": ("pipeline.crawl.command", "crawl pages of your own for a harvest"),
    "harvest": ("pipeline.harvest", "harvest pairs from crawl files or tables into shards"),
    "demo": ("pipeline.demo.run", "harvest a small web that comes with the program"),
    "explain": ("pipeline.explain.command", "say why a picture or a query is in it, or is not"),
    "queries": ("query_list.cli", "make query lists"),
    "train": ("trainer.train", "train a CLIP model on shards"),
    "eval": ("trainer.evaluate.command", "evaluate a model: zero-shot, retrieval"),
    "export": ("trainer.export", "write weights for open_clip and Hugging Face"),
    "shards": ("wit.shards_cli", "check and describe a folder of shards, take samples out"),
}
TRAINING = ("torch", "safetensors", "tensorboard", "ftfy", "regex")  # of the extra `train`
HELP = """usage: wit COMMAND [OPTION ...]

Make web-scale image-text datasets as CLIP's was made.

commands:
{commands}

a first walk, two minutes:
  wit demo --out demo                     a small web, harvested; prints where its report is
then with your own data:
  wit queries starter --out queries.parquet
  wit harvest pages.warc.gz --queries queries.parquet --contact you@example.org --out mine
  wit shards verify mine

`wit COMMAND --help` explains a command. `wit --version` prints {version}.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; exit code 0, 1 for problems found, 2 for a user's error, 130 for Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
        print(HELP.format(commands=commands, version=wit.__version__), end="")
        return 0
    if argv[0] in ("-V", "--version"):
        print(wit.__version__)
        return 0
    if argv[0] not in COMMANDS:
        print(f"wit: no command {argv[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    from wit.errors import UserError

    try:
        return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    except UserError as error:
        print(f"wit {argv[0]}: {error}", file=sys.stderr)
        code = 2
    except ModuleNotFoundError as error:
        if error.name not in TRAINING:
            raise
        said = f"needs {error.name}, which is not here: pip install 'webimagetext[train]'"
        print(f"wit {argv[0]}: {said}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        print(f"wit {argv[0]}: stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a runner's threads may still wait for workers that end with this process


if __name__ == "__main__":
    sys.exit(main())
