"""The loop: observe, forecast, plan, publish. :mod:`meshctl.control.loop` reads top to bottom."""
