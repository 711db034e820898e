"""Changes out: what makes a plan real. One file per platform; publishing to sidecars is
:mod:`meshctl.actuators.xds`.
"""
