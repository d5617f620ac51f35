"""The colours of charts, boxes and figures."""

# The palette of Okabe and Ito, "Color universal design" (2008), is also distinguishable for colour-blind readers. The
# last two colours replace black and yellow, so that all are readable on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
WHITE_ON = COLOURS[:1]  # colours that need white text; black is more readable on all others
