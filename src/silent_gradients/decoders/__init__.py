"""Likelihoods p(x|z): linear decoders with exact expectations, and the convolutional decoders of the paper."""
