"""The colours of charts, boxes and figures."""

# Okabe and Ito, "Color universal design" (2008), told apart by colour-blind eyes too. The last two replace black and
# yellow: all are read on white as on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
WHITE_ON = COLOURS[:1]  # black is read better on all others
