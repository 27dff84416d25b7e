"""Segment pictures: ``python -m lib.predict MODEL IMAGES... --output DIR``.

MODEL is a student (.safetensors, of lib.export.save_student) or an exported model (.onnx, of
lib.export.export_onnx or quantise_int8). IMAGES are files and folders; folders are searched to
their depths. Every picture gets, at its own size and under its own name,

  DIR/masks/NAME.png      two classes: 0 background, 255 foreground; more classes: their numbers
                          0, 1, 2, ... with a palette of colours
  DIR/overlays/NAME.png   the picture with the classes in colour over it

Folders below IMAGES are kept below DIR/masks; with several IMAGES their own names come first. It is
safe to run again: results are replaced, and not searched for pictures. A
DIR/masks that holds files of others is left alone.

Exit status: 0 all pictures were segmented; 1 some could not be read (named at the end) and the
others were segmented, or a result could not be written; 2 the request makes no sense, nothing was
written; 130 stopped with Ctrl-C.
"""

import argparse
import sys

import torch

from lib.data.errors import listing
from lib.export.card import ModelFileError
from lib.predict.folder import predict_pictures
from lib.predict.inputs import InputError, claim, find_jobs
from lib.predict.model import PRECISIONS, load_model

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        arguments: the command line without the program; default: that of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        jobs = find_jobs(options.images, options.output)
        model = load_model(options.model, device=options.device, precision=options.precision)
        size = options.size or model.card.size
        _try_size(model, size, options)
    except (InputError, ModelFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    try:
        claim(options.output, overlays=options.overlay)
        report = predict_pictures(
            model,
            jobs,
            size=size,
            overlays=options.overlay,
            batch=options.batch,
            progress=True,
        )
    except OSError as error:
        print(f"error: a result could not be written ({error})", file=sys.stderr)
        return FAILED
    except ValueError as error:
        print(f"error: {options.model}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr)
        return INTERRUPTED
    names = ", ".join(model.card.class_names)
    half = ", bfloat16" if getattr(model, "half", False) else ""  # an ONNX model has no choice
    print(
        f"{report.written} pictures in {report.seconds:.1f} s, {report.rate:.1f} images/s{half}; "
        f"classes: {names}; results: {options.output}"
    )
    if report.unreadable:
        print(
            f"{len(report.unreadable)} pictures could not be read:\n{listing(report.unreadable)}",
            file=sys.stderr,
        )
        return FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=".safetensors or .onnx")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files and folders")
    parser.add_argument("--output", required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--size", type=_at_least_1, metavar="N",
        help="side in pixels that pictures are squashed to for the model; default: as in training",
    )  # fmt: skip
    parser.add_argument(
        "--overlay", action=argparse.BooleanOptionalAction, default=True,
        help="write overlays beside the masks",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=_at_least_1, default=8, metavar="N", help="pictures at once; default: 8"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, mps; default: a GPU if there is one"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto",
        help="of a .safetensors model; default: bfloat16 where the hardware computes in it, which "
        "is faster and gives a few pixels at outlines another class, else float32",
    )  # fmt: skip
    return parser


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text}")
    return int(text)


def _try_size(model, size: int, options: argparse.Namespace) -> None:
    """Find out before the first picture whether the model runs on images of that size."""
    try:
        model(torch.zeros(1, 3, size, size))
    except (ValueError, RuntimeError) as error:  # of the size, of memory, of the device
        origin = "--size" if options.size else "the size of its training"
        remedy = "leave --size out" if options.size else "try --device cpu or another --size"
        raise InputError(
            f"{options.model} cannot be run on images of {size} px ({origin}): {error}; {remedy}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
