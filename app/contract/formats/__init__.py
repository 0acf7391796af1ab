"""Decode the formats of which OpenCV reads only some layouts, or ignores some tags: TIFF, BMP, GIF, AVIF and HEIC.

Each module returns `Pixels`, upright. Limits on sizes, tiles and the like are checked before it is called.
"""
