"""The language model: AudioCraft's streaming transformer over codebook patterns, with its conditioners.

``config`` needs no torch; everything else does.
"""
