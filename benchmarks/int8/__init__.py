"""Quantized forms of a portfolio's candidates: accuracy, time and answers on several kinds of processor."""
