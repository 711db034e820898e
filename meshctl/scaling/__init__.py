"""Policies that propose replica counts; :mod:`meshctl.planning` measures, guards and records.

``get`` finds one by its name in the mesh file.
"""
