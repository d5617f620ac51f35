"""A tracked, repeatable study of the FCOS detector (Tian et al., arXiv 2006.09214)."""
