"""Methods to compare with, each behind the same two calls."""
