"""Bytes to bytes: digests, compression, encryption, chunking. Only home of these libraries beside `trust`."""
