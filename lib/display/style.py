"""One look for all figures: colours that colour-blind readers tell apart, little ink.

The eight colours are those of Okabe and Ito (2008). A thing has the same colour in every figure:
see the names below.
"""

import matplotlib as mpl
from matplotlib.colors import ListedColormap

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"

# Lines and bars, in order of use; yellow is left out, being too light for lines on white.
CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)

# Foreground classes 1, 2, ... in masks and overlays; more classes start over.
CLASS_COLOURS = (GREEN, ORANGE, SKY, PURPLE, YELLOW, BLUE, VERMILLION)

TRUTH = YELLOW  # outline of the true mask
HIT, MISS, FALSE_ALARM = "#BBBBBB", VERMILLION, BLUE  # pixels of an error map
POSITIVE, NEGATIVE, BOX = SKY, VERMILLION, SKY  # prompts
PROBABILITY = "cividis"  # colour map of probabilities, readable with any colour vision

WIDTH = 10.0  # inches: the width of a notebook's text
ERROR_COLOURS = ListedColormap([HIT, MISS, FALSE_ALARM])


def use_style() -> None:
    """Set matplotlib's defaults for this session. Call it once, at a notebook's top.

    80 dots an inch keep a notebook with ten figures of photographs below a megabyte.
    """
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.prop_cycle": mpl.cycler(color=CYCLE),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 80,
            "figure.figsize": (WIDTH, 3.5),
            "font.size": 11,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 80,
        }
    )
