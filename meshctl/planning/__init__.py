"""What the mesh should look like next, and why: ``decide`` turns an observation and a forecast into a plan.

Everything here is a pure function of its arguments; time comes with the observation. Read :mod:`meshctl.planning.plan`
first. :mod:`~meshctl.planning.capacity` sizes services, :mod:`~meshctl.planning.replicas` chooses counts with a
policy of :mod:`meshctl.scaling`, :mod:`~meshctl.planning.limits` and :mod:`~meshctl.planning.rates` choose what is
admitted, and :mod:`~meshctl.planning.guardrails` bound every step.
"""
