"""Faults and experiments as data, run by Chaos Toolkit, judged by concurrent arms, scored from 0 to 100."""
