"""Offered by the package and named by no config: nobody may import it."""

raise ImportError("imported, though no config names it")
