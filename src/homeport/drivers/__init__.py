"""Drivers: the only hands that touch the world. Each folder holds a Protocol (`base.py`) and its implementations.

Drivers are synchronous and thread-safe; every method may be called twice, because after a crash it will be.
"""
