"""A tracked, repeatable study of the FCOS detector (Tian et al., arXiv 2006.09214)."""

__version__ = "0.1.0"
