"""What has happened already in the process that notebooks are forked from: the pictures are read

Most notebooks begin with `fashion()`, which unpacks 6,000 small files; each gets its own copies.
"""
from fastloop.examples import fashion

fashion()
